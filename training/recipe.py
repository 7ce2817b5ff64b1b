"""Named training recipes: every choice that shapes a run, as data."""

import math
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """The choices of one run.

    `network` is what is trained: a ResNet-18, or a compact network that is then written into one
    (`training/compact.py`, `training/transplant.py`). `init` is `imagenet`, `random`, `teacher` (compact only) or the
    path of a weights file. `freeze` keeps conv1 to layer2 as initialised, `freeze_batchnorm` all batch statistics (for
    weights whose BatchNorm is folded, and for tiny batches). `untouched` is the share of tiles whose colours stay.
    `stages` are pairs of (epochs, input side): small inputs first makes most epochs cheap; the last side is the one
    served. The `cosine` schedule restarts with each stage, at half the rate before; `plateau` goes with early
    stopping after `patience` epochs and keeps the epoch best on validation, where `cosine` keeps the last.
    `temperature` softens a teacher's targets.
    """

    name: str
    network: Literal["resnet18", "compact"] = "resnet18"
    init: str = "imagenet"
    freeze: bool = True
    batch_size: int = 128
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: Literal["plateau", "cosine"] = "plateau"
    patience: int | None = 5
    freeze_batchnorm: bool = False
    augmentation: Literal["none", "classic", "strong"] = "classic"
    untouched: float = 0.0
    mixup: float = 0.0
    label_smoothing: float = 0.0
    ema_decay: float | None = None
    gradient_clip: float | None = None
    temperature: float = 2.0
    stages: tuple[tuple[int, int], ...] = ((20, 224),)

    @property
    def epochs(self) -> int:
        return sum(epochs for epochs, _ in self.stages)

    def stage_at(self, epoch: int) -> tuple[int, float, int]:
        """The stage of an epoch (counted from 0): its index, the share of it that is done, its input side."""
        start = 0
        for index, (epochs, size) in enumerate(self.stages):
            if epoch < start + epochs:
                return index, (epoch - start) / epochs, size
            start += epochs
        return len(self.stages) - 1, 1.0, self.stages[-1][1]

    def rate_factor(self, epoch: int) -> float:
        """The cosine schedule's factor on the learning rate, with one warm-up epoch at a tenth."""
        if epoch == 0:
            return 0.1
        index, done, _ = self.stage_at(epoch)
        return float(0.5**index * (1 + math.cos(math.pi * done)) / 2)


CLASSIC = Recipe(name="classic")

STRONG = replace(
    CLASSIC,
    name="strong",
    freeze=False,
    optimizer="adamw",
    learning_rate=3e-4,
    weight_decay=0.05,
    schedule="cosine",
    patience=None,
    augmentation="strong",
    mixup=0.5,
    label_smoothing=0.05,
    ema_decay=0.999,
)

DISTILLED = replace(
    STRONG,
    name="distilled",
    network="compact",
    init="teacher",
    batch_size=64,
    learning_rate=2e-3,
    untouched=0.25,
    ema_decay=0.99,
    gradient_clip=5.0,
    stages=((300, 28),),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (CLASSIC, STRONG, DISTILLED)}
