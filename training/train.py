"""Train a ResNet-18 on PathMNIST: `python -m training.train --data medmnist`."""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from handler.model import CARD, WEIGHTS
from handler.network import load_network
from handler.preprocess import Preprocessing
from training.checkpoint import save_weights, write_json
from training.classifier import TileClassifier
from training.data import (
    DataError,
    PathMNIST,
    TileDataset,
    add_data_argument,
    keep_batch,
    load,
)
from training.evaluate import predict_probabilities, scores
from training.recipe import RECIPES, Recipe
from training.teacher import load_teacher

VERSION = "1.0"


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
    parser.add_argument("--epochs", type=int, help="epochs, all at one --input-size")
    parser.add_argument("--input-size", type=int, help="the network's input side, for all epochs")
    parser.add_argument("--batch-size", type=int, help="tiles per step and device")
    parser.add_argument("--learning-rate", type=float, help="peak learning rate")
    parser.add_argument("--teacher", type=Path, help="safetensors of a teacher to distil from")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("runs/latest"),
        help="folder for checkpoint, card and logs",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last epoch in --output")
    parser.add_argument("--precision", default="32-true", help="Lightning's precision, such as 16-mixed")
    parser.add_argument("--accelerator", default="auto", help="Lightning's accelerator")
    parser.add_argument("--devices", default="auto", help="Lightning's devices")
    return parser.parse_args(arguments)


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """The named recipe with what the command line changes in it."""
    recipe = RECIPES[arguments.recipe]
    names = ("init", "freeze", "batch_size", "learning_rate")
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


def train(arguments: argparse.Namespace) -> Path:
    """Run the recipe; returns the folder with weights, card and curves."""
    commit = _commit()
    L.seed_everything(arguments.seed, workers=True)
    recipe = recipe_from(arguments)
    data = load(arguments.data)
    teacher = load_teacher(arguments.teacher) if arguments.teacher else None
    preprocessing = Preprocessing(canonical_size=data.tile_size, input_size=recipe.stages[-1][1])
    classifier = TileClassifier(recipe, preprocessing, teacher)
    trainer = L.Trainer(
        max_epochs=recipe.epochs,
        accelerator=arguments.accelerator,
        devices=arguments.devices,
        precision=arguments.precision,
        callbacks=callbacks_for(recipe, arguments.output),
        logger=CSVLogger(arguments.output, name="curves"),
        log_every_n_steps=1,
        num_sanity_val_steps=0,
    )
    resume = str(arguments.output / "last.ckpt") if arguments.resume else None
    trainer.fit(
        classifier,
        DataLoader(
            TileDataset(data.train),
            recipe.batch_size,
            shuffle=True,
            collate_fn=keep_batch,
            drop_last=True,
        ),
        DataLoader(TileDataset(data.val), recipe.batch_size, collate_fn=keep_batch),
        ckpt_path=resume,
        weights_only=True,
    )
    if not trainer.is_global_zero:
        return Path(arguments.output)
    if recipe.schedule == "plateau":
        best = arguments.output / "best.ckpt"
        classifier.load_state_dict(trainer.strategy.load_checkpoint(best, weights_only=True)["state_dict"])
    digest = save_weights(classifier.network, arguments.output / WEIGHTS)
    card = make_card(
        arguments, recipe, data, preprocessing, {"digest": digest, "commit": commit, "epochs": trainer.current_epoch}
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
        "version": VERSION,
        "digest": origin["digest"],
        "licence": "MIT",
        "preprocessing": preprocessing.to_json(),
        "training": {
            "data": f"{len(data.train)} PathMNIST training tiles of {data.tile_size} pixels",
            "data_digest": data.digest,
            "teacher": arguments.teacher.name if arguments.teacher else None,
            "recipe": asdict(recipe),
            "epochs": origin["epochs"],
            "seed": arguments.seed,
            "commit": origin["commit"],
            "date": datetime.now(UTC).date().isoformat(),
        },
        "evaluation": evaluation,
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
