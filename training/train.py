"""Train a ResNet-18 on PathMNIST: `python -m training.train --data medmnist`."""

import argparse
import json
import platform
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from torchvision.models import ResNet

from evaluation.classification import predict_probabilities, scores
from handler.model.checkpoint import CARD, WEIGHTS
from handler.model.network import load_network
from handler.model.preprocess import Preprocessing
from training.checkpoint import save_weights, write_json
from training.compact import CompactCNN, from_teacher
from training.data import (
    DataError,
    PathMNIST,
    Split,
    TileDataset,
    add_data_argument,
    as_tiles,
    keep_batch,
    load,
)
from training.module import TileClassifier, initial_network
from training.recipe import RECIPES, Recipe
from training.teachers import SimpleCNN, load_teacher
from training.transplant import transplant

VERSION = "1.0"
Batches = DataLoader[tuple[Tensor, Tensor]]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_data_argument(parser)
    parser.add_argument(
        "--recipe",
        choices=sorted(RECIPES),
        default="classic",
        help="named defaults for all below",
    )
    parser.add_argument("--init", metavar="imagenet|random|FILE", help="initial weights")
    parser.add_argument(
        "--freeze",
        action=argparse.BooleanOptionalAction,
        help="keep conv1 to layer2 as initialised",
    )
    parser.add_argument(
        "--freeze-batchnorm", action=argparse.BooleanOptionalAction, help="keep the batch statistics as initialised"
    )
    parser.add_argument("--augmentation", choices=("none", "classic", "strong"), help="what is done to training tiles")
    parser.add_argument("--epochs", type=int, help="epochs, all at one --input-size")
    parser.add_argument("--input-size", type=int, help="the network's input side, for all epochs")
    parser.add_argument("--batch-size", type=int, help="tiles per step and device")
    parser.add_argument("--learning-rate", type=float, help="peak learning rate")
    parser.add_argument("--teacher", type=Path, help="safetensors of a teacher to distil from")
    parser.add_argument("--teacher-origin", help="what the card says of the teacher: whose it is, its licence")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/latest"),
        help="folder for checkpoint, card and logs",
    )
    parser.add_argument("--stop-after", type=int, metavar="EPOCHS", help="end early, to be gone on with by --resume")
    parser.add_argument("--resume", action="store_true", help="go on from the last epoch in --output")
    parser.add_argument("--precision", default="32-true", help="Lightning's precision, such as 16-mixed")
    parser.add_argument("--accelerator", default="auto", help="Lightning's accelerator")
    parser.add_argument("--devices", default="auto", help="Lightning's devices, on each machine")
    parser.add_argument("--num-nodes", type=int, default=1, help="machines, each started by torchrun")
    parser.add_argument("--strategy", default="auto", help="Lightning's strategy, such as ddp")
    return parser.parse_args(arguments)


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """The named recipe with what the command line changes in it."""
    recipe = RECIPES[arguments.recipe]
    names = ("init", "freeze", "freeze_batchnorm", "augmentation", "batch_size", "learning_rate")
    changes = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.epochs or arguments.input_size:
        stage = (
            arguments.epochs or recipe.epochs,
            arguments.input_size or recipe.stages[-1][1],
        )
        changes["stages"] = (stage,)
    return replace(recipe, **changes)


def callbacks_for(recipe: Recipe, output: Path) -> list[Callback]:
    """The last epoch is kept to resume from; `plateau` also keeps the best one and stops early."""
    callbacks: list[Callback] = [ModelCheckpoint(output, filename="last", enable_version_counter=False)]
    if recipe.schedule == "plateau":
        callbacks.append(
            ModelCheckpoint(
                output,
                filename="best",
                monitor="val_loss",
                save_weights_only=True,
                enable_version_counter=False,
            )
        )
    if recipe.patience is not None:
        callbacks.append(EarlyStopping("val_loss", patience=recipe.patience))
    if recipe.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=recipe.ema_decay))
    return callbacks


def first_network(recipe: Recipe, split: Split, teacher: SimpleCNN | None) -> nn.Module:
    """The network that training starts from. Raises `DataError` where the recipe wants a teacher and there is none."""
    if recipe.network == "resnet18":
        return initial_network(recipe.init)
    if teacher is None:
        raise DataError(f"the recipe {recipe.name} starts from a teacher: give its file with --teacher")
    return from_teacher(teacher, as_tiles(split), Preprocessing(input_size=recipe.stages[0][1]))


def last_network(trained: nn.Module, split: Split, preprocessing: Preprocessing) -> ResNet:
    """The ResNet-18 to keep."""
    if isinstance(trained, CompactCNN):
        return transplant(trained.eval(), as_tiles(split), preprocessing)
    assert isinstance(trained, ResNet)
    return trained


def loader(split: Split, trainer: L.Trainer, batch_size: int, seed: int | None = None) -> Batches:
    """Batches of this process's share of a split, shuffled where there is a seed.

    The order depends on seed and epoch alone, and all processes' batches of one step make up the batch that a single
    process with the whole batch size would see.
    """
    tiles, shuffle = TileDataset(split), seed is not None
    sampler = DistributedSampler[tuple[Tensor, Tensor]](
        tiles, trainer.world_size, trainer.global_rank, shuffle=shuffle, seed=seed or 0, drop_last=shuffle
    )
    # A loader draws from its generator whenever it starts, and the global one belongs to augmentation.
    return DataLoader(
        tiles, batch_size, sampler=sampler, collate_fn=keep_batch, drop_last=shuffle, generator=torch.Generator()
    )


def train(arguments: argparse.Namespace) -> Path:
    """Run the recipe; returns the folder with weights, card and curves."""
    commit = _commit()
    L.seed_everything(arguments.seed, workers=True)
    recipe = recipe_from(arguments)
    data = load(arguments.data)
    teacher = load_teacher(arguments.teacher) if arguments.teacher else None
    preprocessing = Preprocessing(data.tile_size, 224 if recipe.network == "compact" else recipe.stages[-1][1])
    network = first_network(recipe, data.train, teacher)
    classifier = TileClassifier(network, recipe, preprocessing, teacher, arguments.seed)
    trainer = L.Trainer(
        max_epochs=min(recipe.epochs, arguments.stop_after or recipe.epochs),
        accelerator=arguments.accelerator,
        devices=arguments.devices,
        num_nodes=arguments.num_nodes,
        strategy=arguments.strategy,
        precision=arguments.precision,
        callbacks=callbacks_for(recipe, arguments.output),
        logger=CSVLogger(arguments.output, name="curves"),
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        gradient_clip_val=recipe.gradient_clip,
        use_distributed_sampler=False,
    )
    resume = str(arguments.output / "last.ckpt") if arguments.resume else None
    trainer.fit(
        classifier,
        loader(data.train, trainer, recipe.batch_size, arguments.seed),
        loader(data.val, trainer, recipe.batch_size),
        ckpt_path=resume,
        weights_only=True,
    )
    if not trainer.is_global_zero:
        return Path(arguments.output)
    if recipe.schedule == "plateau":
        best = arguments.output / "best.ckpt"
        classifier.load_state_dict(trainer.strategy.load_checkpoint(best, weights_only=True)["state_dict"])
    kept = last_network(classifier.network, data.train, preprocessing)
    digest = save_weights(kept, arguments.output / WEIGHTS)
    card = make_card(
        arguments,
        recipe,
        data,
        preprocessing,
        {"digest": digest, "commit": commit, "epochs": trainer.current_epoch, "environment": environment(trainer)},
    )
    write_json(arguments.output / CARD, card)
    print(json.dumps(card["evaluation"], indent=2))
    return Path(arguments.output)


def make_card(
    arguments: argparse.Namespace,
    recipe: Recipe,
    data: PathMNIST,
    preprocessing: Preprocessing,
    origin: dict[str, Any],
) -> dict[str, Any]:
    """What the weights are, where they come from and how well they do, as read back from their file."""
    network = load_network(arguments.output / WEIGHTS)
    evaluation = {
        name: scores(
            predict_probabilities(network, split, preprocessing),
            split.labels,
        )
        for name, split in (("val", data.val), ("test", data.test))
    }
    return {
        "name": "pathmnist-resnet18",
        # Servers tell models apart by version, so each run has its own.
        "version": f"{VERSION}-{origin['digest'][:8]}",
        "digest": origin["digest"],
        "licence": "MIT",
        "preprocessing": preprocessing.to_json(),
        "training": {
            "data": f"{len(data.train)} PathMNIST training tiles of {data.tile_size} pixels",
            "data_digest": data.digest,
            "teacher": arguments.teacher_origin or (arguments.teacher.name if arguments.teacher else None),
            "recipe": asdict(recipe),
            "epochs": origin["epochs"],
            "seed": arguments.seed,
            "commit": origin["commit"],
            "date": datetime.now(UTC).date().isoformat(),
            "environment": origin["environment"],
        },
        "evaluation": evaluation,
    }


def environment(trainer: L.Trainer) -> dict[str, Any]:
    """What the run ran on, as far as it can shape its numbers."""
    device = trainer.strategy.root_device
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
    packages = ("torch", "torchvision", "lightning", "kornia", "numpy")
    return {
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "device": kind,
        "processes": trainer.world_size,
        "precision": trainer.precision,
    }


def _commit() -> str:
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or "unknown"


def main() -> None:
    try:
        train(parse_arguments())
    except DataError as error:
        sys.exit(f"data: {error}")


if __name__ == "__main__":
    main()
