"""Projects the duration of a recipe on the full data set: `python -m training.throughput --recipe scratch`.

Trains a few steps of each stage on random pixels, which take as long as real ones, and prints JSON: images per second
for reading, for augmentation, and for complete training steps of each stage; and the projected hours of all stages on
the official 89,996 tiles, without validation.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric

from training.card import environment
from training.data import PathMNIST, Split
from training.loop import Run, Training
from training.precision import fabric_precision
from training.recipe import RECIPES, Recipe, Stage
from training.teachers import EfficientNetTeacher

TRAIN_TILES = 89_996
WARM_UP = 2


def measure(recipe: Recipe, steps: int, tiles: int = TRAIN_TILES) -> dict[str, Any]:
    """Medians over `steps` batches after a warm-up, with random weights."""
    fabric = Fabric(devices=1, precision=fabric_precision("auto", recipe.bfloat16))
    full, data = replace(recipe, init="random").in_steps(TRAIN_TILES), _random_data(tiles)
    with TemporaryDirectory() as folder:
        trainings = [_stage(full, stage, data, fabric, Path(folder)) for stage in full.stages]
    seconds = [_median(training.step, steps, fabric) for training in trainings]
    rates = [stage.batch_size / each for stage, each in zip(full.stages, seconds, strict=True)]
    hours = sum(stage.steps * each for stage, each in zip(full.stages, seconds, strict=True)) / 3600
    return {
        "recipe": recipe.name,
        "environment": environment(fabric),
        "images_per_second": _input_rates(trainings[-1], steps),
        "stages": [
            {**asdict(stage), "images_per_second": round(rate, 1)}
            for stage, rate in zip(full.stages, rates, strict=True)
        ],
        "projected_hours": round(hours, 2),
    }


def _random_data(tiles: int) -> PathMNIST:
    random = np.random.default_rng(0)
    split = Split(random.integers(0, 256, (tiles, 28, 28, 3), dtype=np.uint8), random.integers(0, 9, tiles))
    few = split.sample(9)
    return PathMNIST(train=split, val=few, test=few, digest="")


def _stage(recipe: Recipe, stage: Stage, data: PathMNIST, fabric: Fabric, folder: Path) -> Training:
    """A run that consists of one stage of a recipe."""
    teacher = EfficientNetTeacher().eval().requires_grad_(False) if stage.distillation else None
    return Training(fabric, Run(replace(recipe, stages=(stage,)), data, folder, teacher))


def _input_rates(training: Training, steps: int) -> dict[str, float]:
    """Images per second for reading, and for reading and augmenting."""
    size = training.recipe.stages[0].batch_size

    def read() -> torch.Tensor:
        return training.fabric.to_device(training.stream.read(0, size))[0]

    def augmented() -> torch.Tensor:
        return training.colour(training.geometry(read().float() / 255).clamp(0, 1))

    return {
        "shuffled tiles": round(size / _median(read, steps, training.fabric), 1),
        "with augmentation": round(size / _median(augmented, steps, training.fabric), 1),
    }


def _median(work: Callable[[], Any], repeats: int, fabric: Fabric) -> float:
    """Median seconds of a call."""
    seconds = []
    for _ in range(repeats + WARM_UP):
        start = time.perf_counter()
        work()
        if fabric.device.type == "cuda":
            torch.cuda.synchronize(fabric.device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM_UP:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="classic")
    parser.add_argument("--steps", type=int, default=10, help="training steps to time in each stage")
    arguments = parser.parse_args()
    print(json.dumps(measure(RECIPES[arguments.recipe], arguments.steps), indent=2))


if __name__ == "__main__":
    main()
