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

from training.data import PathMNIST, Split
from training.loop import Training
from training.networks import first_network, preprocessing_of
from training.precision import fabric_precision
from training.recipe import RECIPES, Recipe
from training.teachers import EfficientNetTeacher
from training.train import environment

TRAIN_TILES = 89_996
WARM_UP = 2


def measure(recipe: Recipe, steps: int, tiles: int = TRAIN_TILES) -> dict[str, Any]:
    """Medians over `steps` batches after a warm-up, with random weights."""
    fabric = Fabric(devices=1, precision=fabric_precision("auto", recipe.bfloat16))
    random = np.random.default_rng(0)
    split = Split(random.integers(0, 256, (tiles, 28, 28, 3), dtype=np.uint8), random.integers(0, 9, tiles))
    few = split.sample(9)
    data = PathMNIST(train=split, val=few, test=few, digest="")
    full = replace(recipe, init="random").in_steps(TRAIN_TILES)
    rates, hours = [], 0.0
    for stage in full.stages:
        alone = replace(full, stages=(stage,))
        teacher = EfficientNetTeacher().eval().requires_grad_(False) if stage.distillation else None
        with TemporaryDirectory() as folder:
            training = Training(
                fabric, alone, preprocessing_of(alone, 28), first_network(alone), data, Path(folder), teacher
            )
        seconds = _median(training.step, steps, fabric)
        rates.append({**asdict(stage), "images_per_second": round(stage.batch_size / seconds, 1)})
        hours += stage.steps * seconds / 3600
    size = full.stages[-1].batch_size

    def read() -> torch.Tensor:
        return fabric.to_device(training.stream.read(0, size))[0]

    def augmented() -> torch.Tensor:
        return training.colour(training.geometry(read().float() / 255).clamp(0, 1))

    return {
        "recipe": recipe.name,
        "environment": environment(fabric),
        "images_per_second": {
            "shuffled tiles": round(size / _median(read, steps, fabric), 1),
            "with augmentation": round(size / _median(augmented, steps, fabric), 1),
        },
        "stages": rates,
        "projected_hours": round(hours, 2),
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
