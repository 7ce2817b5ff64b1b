"""How long the full data set would take: `python -m training.throughput --recipe classic`.

Trains for a few steps on random pixels of the official size (89,996 tiles), which cost what real ones cost, and prints
JSON: images per second from the loader, through augmentation, and through whole training steps; and the time that the
recipe's epochs would take with its validation.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from handler.model.preprocess import Preprocessing
from training.compact import CompactCNN
from training.data import Split
from training.module import TileClassifier, initial_network
from training.recipe import RECIPES, Recipe
from training.teachers import SimpleCNN
from training.train import environment, loader

TRAIN_TILES, VAL_TILES = 89_996, 10_004
WARM_UP = 2
# Of the teacher that docs/training.md names.
TEACHER_WIDTHS, TEACHER_HIDDEN = (32, 64, 128), 256


class Stopwatch(L.Callback):
    """Seconds of each training step, from the end of the one before, so that loading counts."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now


def measure(recipe: Recipe, steps: int, tiles: int = TRAIN_TILES) -> dict[str, Any]:
    """Medians over `steps` batches, without the first ones."""
    random = np.random.default_rng(0)
    split = Split(random.integers(0, 256, (tiles, 28, 28, 3), dtype=np.uint8), random.integers(0, 9, tiles))
    stopwatch = Stopwatch()
    trainer = L.Trainer(
        max_epochs=1,
        limit_train_batches=steps + WARM_UP,
        callbacks=[stopwatch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    # The schedule of `plateau` wants a validation, which is not what is timed.
    timed = replace(recipe, schedule="cosine")
    spec = Preprocessing(input_size=recipe.stages[-1][1])
    network, teacher = networks(recipe, spec)
    classifier = TileClassifier(network, timed, spec, teacher)
    batches = loader(split, trainer, recipe.batch_size, seed=0)
    trainer.fit(classifier, batches)
    step = statistics.median(stopwatch.seconds[WARM_UP:])
    prepared = (classifier.colour(classifier.geometry(tiles.float() / 255).clamp(0, 1)) for tiles, _ in batches)
    train_rate = recipe.batch_size / step
    return {
        "recipe": recipe.name,
        "environment": environment(trainer),
        "images_per_second": {
            "loader": _rate(iter(batches), recipe.batch_size, steps),
            "loader and augmentation": _rate(prepared, recipe.batch_size, steps),
            "training step": round(train_rate, 1),
        },
        "projected_hours": round(recipe.epochs * (TRAIN_TILES + VAL_TILES / 3) / train_rate / 3600, 2),
    }


def networks(recipe: Recipe, spec: Preprocessing) -> tuple[nn.Module, SimpleCNN | None]:
    """What the recipe trains, and its teacher where it needs one, with random weights."""
    if recipe.network == "resnet18":
        return initial_network("random"), None
    teacher = SimpleCNN(TEACHER_WIDTHS, TEACHER_HIDDEN).requires_grad_(False)
    return CompactCNN(TEACHER_WIDTHS, spec), teacher


def _rate(batches: Iterator[Tensor | tuple[Tensor, Tensor]], size: int, steps: int) -> float:
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        next(batches)
        seconds.append(time.perf_counter() - start)
    return round(size / statistics.median(seconds), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="classic")
    parser.add_argument("--steps", type=int, default=10, help="training steps to time")
    arguments = parser.parse_args()
    print(json.dumps(measure(RECIPES[arguments.recipe], arguments.steps), indent=2))


if __name__ == "__main__":
    main()
