"""Train a network on PathMNIST: `python -m training.train --data medmnist --recipe scratch`."""

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
from lightning.fabric import Fabric
from lightning.fabric.loggers.csv_logs import CSVLogger
from torch import nn

from evaluation.channels import dead_channels
from evaluation.classification import predict_probabilities, scores
from handler.model.checkpoint import CARD, WEIGHTS
from handler.model.network import load_network
from handler.model.preprocess import Preprocessing
from training.checkpoint import save_weights, write_json
from training.data import DataError, PathMNIST, add_data_argument, as_tiles, load
from training.loop import Training
from training.networks import first_network, preprocessing_of
from training.precision import fabric_precision
from training.recipe import RECIPES, Recipe, Stage
from training.teachers import load_teacher

VERSION = "2.0"
TEACHER_WEIGHTS = "teacher.safetensors"
TEACHER_CARD = "teacher.json"
# Number of validation tiles for the check for dead channels.
CHANNEL_TILES = 501


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_data_argument(parser)
    parser.add_argument(
        "--recipe", choices=sorted(RECIPES), default="classic", help="named defaults for all options below"
    )
    parser.add_argument("--init", metavar="imagenet|random|FILE", help="initial weights")
    parser.add_argument("--freeze", action=argparse.BooleanOptionalAction, help="keep conv1 to layer2 as initialised")
    parser.add_argument(
        "--freeze-batchnorm", action=argparse.BooleanOptionalAction, help="keep the batch statistics as initialised"
    )
    parser.add_argument(
        "--augmentation", choices=("none", "classic", "strong"), help="augmentation of the training tiles"
    )
    parser.add_argument("--epochs", type=int, help="train a single stage of this many epochs at --input-size")
    parser.add_argument("--steps", type=int, help="train a single stage of this many steps at --input-size")
    parser.add_argument("--input-size", type=int, help="the network's input side in every stage")
    parser.add_argument("--batch-size", type=int, help="tiles per step and device in every stage")
    parser.add_argument("--learning-rate", type=float, help="peak learning rate")
    parser.add_argument("--teacher", type=Path, help="weights of a teacher, written by the recipe `teacher`")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random choice")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/latest"), help="folder for checkpoint, card and curves"
    )
    parser.add_argument(
        "--stop-after", type=int, metavar="STEPS", help="stop after this many steps; continue with --resume"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --output from its last saved step")
    parser.add_argument(
        "--precision",
        default="auto",
        help="Lightning Fabric's, such as bf16-mixed; auto is the recipe's, if it is fast on this machine",
    )
    parser.add_argument("--accelerator", default="auto", help="Lightning Fabric's accelerator")
    parser.add_argument("--devices", default="auto", help="Lightning Fabric's devices, on each machine")
    parser.add_argument("--num-nodes", type=int, default=1, help="machines, each started by torchrun")
    parser.add_argument("--strategy", default="auto", help="Lightning Fabric's strategy, such as ddp")
    return parser.parse_args(arguments)


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """The named recipe with the changes from the command line."""
    recipe = RECIPES[arguments.recipe]
    names = ("init", "freeze", "freeze_batchnorm", "augmentation", "learning_rate")
    changes = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.epochs or arguments.steps:
        lengths = {"epochs": arguments.epochs or 0, "steps": arguments.steps or 0}
        changes["stages"] = (replace(recipe.stages[-1], **lengths),)
    stages: tuple[Stage, ...] = changes.get("stages", recipe.stages)
    sizes = {"size": arguments.input_size, "batch_size": arguments.batch_size}
    given = {name: value for name, value in sizes.items() if value is not None}
    return replace(recipe, **{**changes, "stages": tuple(replace(stage, **given) for stage in stages)})


def train(arguments: argparse.Namespace) -> Path:
    """Run the recipe. Returns the folder with weights, card and curves.

    Raises `ValueError` (`DataError` for the data) if data, weights, teacher or the run to resume do not fit.
    """
    commit = _commit()
    recipe, data = recipe_from(arguments), load(arguments.data)
    teacher = load_teacher(arguments.teacher) if arguments.teacher else None
    fabric = _fabric(arguments, recipe)
    fabric.launch()
    L.seed_everything(arguments.seed, verbose=False)
    preprocessing = preprocessing_of(recipe, data.tile_size)
    training = Training(
        fabric,
        recipe.in_steps(len(data.train), fabric.world_size),
        preprocessing,
        first_network(recipe),
        data,
        arguments.output,
        teacher,
        arguments.seed,
    )
    if arguments.resume:
        training.resume()
    network = training.fit(arguments.stop_after)
    shifts = training.shift_accuracies()
    if fabric.is_global_zero:
        origin = {
            "data": f"{len(data.train)} PathMNIST training tiles of {data.tile_size} pixels",
            "data_digest": data.digest,
            "teacher": teacher.origin if teacher else None,
            "recipe": asdict(recipe),
            "steps": training.progress.step,
            "epochs": round(training.recipe.position(training.progress.step, fabric.world_size) / len(data.train), 2),
            "seed": arguments.seed,
            "commit": commit,
            "date": datetime.now(UTC).date().isoformat(),
            "environment": environment(fabric),
            "validation_shifts": {name: round(value, 4) for name, value in shifts.items()},
        }
        write_result(arguments.output, network, recipe, data, preprocessing, origin)
    return Path(arguments.output)


def _fabric(arguments: argparse.Namespace, recipe: Recipe) -> Fabric:
    return Fabric(
        accelerator=arguments.accelerator,
        devices=arguments.devices,
        num_nodes=arguments.num_nodes,
        strategy=arguments.strategy,
        precision=fabric_precision(arguments.precision, recipe.bfloat16),
        loggers=CSVLogger(arguments.output, name="curves", flush_logs_every_n_steps=1),
    )


def write_result(
    output: Path,
    network: nn.Module,
    recipe: Recipe,
    data: PathMNIST,
    preprocessing: Preprocessing,
    origin: dict[str, Any],
) -> None:
    """Write the weights and their card."""
    if recipe.network != "resnet18":
        digest = save_weights(network, output / TEACHER_WEIGHTS, torch.float32)
        write_json(output / TEACHER_CARD, {"digest": digest, "training": origin})
        print(json.dumps(origin["validation_shifts"], indent=2))
        return
    digest = save_weights(network, output / WEIGHTS)
    card = make_card(output / WEIGHTS, digest, data, preprocessing, origin)
    write_json(output / CARD, card)
    print(json.dumps(card["evaluation"], indent=2))


def make_card(
    weights: Path, digest: str, data: PathMNIST, preprocessing: Preprocessing, origin: dict[str, Any]
) -> dict[str, Any]:
    """The card: description, origin and scores of the weights, which are read back from their file."""
    network = load_network(weights)
    evaluation = {
        name: scores(predict_probabilities(network, split, preprocessing), split.labels)
        for name, split in (("val", data.val), ("test", data.test))
    }
    return {
        "name": "pathmnist-resnet18",
        # Servers distinguish models by version, so each run has a unique one.
        "version": f"{VERSION}-{digest[:8]}",
        "digest": digest,
        "licence": "MIT",
        "preprocessing": preprocessing.to_json(),
        "training": origin,
        "dead_channels": dead_channels(network, as_tiles(data.val.sample(CHANNEL_TILES)), preprocessing),
        "evaluation": evaluation,
    }


def environment(fabric: Fabric) -> dict[str, Any]:
    """The environment of the run that can affect its results."""
    device = fabric.device
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
    packages = ("torch", "torchvision", "lightning", "kornia", "numpy")
    return {
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "device": kind,
        "processes": fabric.world_size,
        "precision": fabric.strategy.precision.precision,
    }


def _commit() -> str:
    result = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


def main() -> None:
    try:
        train(parse_arguments())
    except DataError as error:
        sys.exit(f"data: {error}")
    except ValueError as error:
        sys.exit(f"train: {error}")


if __name__ == "__main__":
    main()
