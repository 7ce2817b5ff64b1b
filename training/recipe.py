"""Named training recipes: all settings of a run, as data."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Stage:
    """A part of a run with a fixed input side.

    Its length is a number of optimiser `steps`, or of `epochs` over the training split. `batch_size` counts the tiles
    of a step on each device. `distillation` is the teacher's share of the loss, if there is a teacher. The
    learning rate stays below `rate_ceiling`, which falls linearly to zero over the stage.
    """

    size: int
    steps: int = 0
    epochs: int = 0
    batch_size: int = 128
    distillation: float = 0.0
    rate_ceiling: float = math.inf

    def in_steps(self, tiles: int, devices: int) -> "Stage":
        """The same stage with its length in steps, for a training split of that many tiles."""
        steps = self.steps or self.epochs * max(1, tiles // (self.batch_size * devices))
        return replace(self, steps=steps, epochs=0)


@dataclass(frozen=True)
class Recipe:
    """The settings of one run.

    `init` is `imagenet`, `random` or the path of a weights file. `freeze` keeps conv1 to layer2 as initialised,
    `freeze_batchnorm` all batch statistics (for weights whose BatchNorm is folded, and for tiny batches). `untouched`
    is the share of tiles whose colours stay, `blurred` and `compressed` are the shares that `strong` blurs and
    compresses as JPEG. `stages` run in order: small inputs at first make most steps cheap. The server uses the last
    side. The `cosine` schedule falls over all stages, or over `cosine_steps` if given,
    to the share `rate_floor` of the peak, after `warm_up` steps; it keeps the last weights. `plateau` divides the rate
    by ten if the validation loss stops falling, stops after `patience` validations without a better one, and keeps
    the best. A validation of `validation_tiles`, or of all, follows every `validation_steps` steps, or every epoch
    if they are not given. `temperature` softens a teacher's targets. `bfloat16` computes in bfloat16 on processors that
    have it.
    """

    name: str
    network: Literal["resnet18", "efficientnet-lite0"] = "resnet18"
    init: str = "imagenet"
    freeze: bool = True
    freeze_batchnorm: bool = False
    stages: tuple[Stage, ...] = (Stage(224, epochs=20),)
    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: Literal["plateau", "cosine"] = "plateau"
    patience: int | None = 5
    warm_up: int = 0
    cosine_steps: int | None = None
    rate_floor: float = 0.0
    validation_steps: int | None = None
    validation_tiles: int | None = None
    augmentation: Literal["none", "classic", "strong"] = "classic"
    untouched: float = 0.0
    blurred: float = 0.0
    compressed: float = 0.0
    mixup: float = 0.0
    label_smoothing: float = 0.0
    ema_decay: float | None = None
    gradient_clip: float | None = None
    temperature: float = 2.0
    bfloat16: bool = False

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Recipe":
        """Inverse of `dataclasses.asdict`."""
        return cls(**{**values, "stages": tuple(Stage(**stage) for stage in values["stages"])})

    def in_steps(self, tiles: int, devices: int = 1) -> "Recipe":
        """The same recipe with all lengths in steps, for a training split of that many tiles."""
        every = self.validation_steps or max(1, tiles // (self.stages[0].batch_size * devices))
        stages = tuple(stage.in_steps(tiles, devices) for stage in self.stages)
        return replace(self, stages=stages, validation_steps=every)

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    @property
    def input_size(self) -> int:
        return self.stages[-1].size

    def stage_at(self, step: int) -> tuple[Stage, float]:
        """The stage of a step (counted from 0), and the completed share of that stage."""
        start = 0
        for stage in self.stages:
            if step < start + stage.steps:
                return stage, (step - start) / stage.steps
            start += stage.steps
        return self.stages[-1], 1.0

    def position(self, step: int, devices: int = 1) -> int:
        """The number of tiles read before a step."""
        start, tiles = 0, 0
        for stage in self.stages:
            tiles += min(max(step - start, 0), stage.steps) * stage.batch_size * devices
            start += stage.steps
        return tiles

    def cosine_rate(self, step: int) -> float:
        """The learning rate of a step under the cosine schedule."""
        stage, done = self.stage_at(step)
        share = min(step / (self.cosine_steps or self.steps), 1)
        cosine = (1 + math.cos(math.pi * share)) / 2
        warm_up = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        ceiling = math.inf if math.isinf(stage.rate_ceiling) else stage.rate_ceiling * (1 - done)
        return min(self.learning_rate * warm_up * (cosine + self.rate_floor), ceiling)


CLASSIC = Recipe(name="classic")

STRONG = replace(
    CLASSIC,
    name="strong",
    freeze=False,
    stages=(Stage(224, epochs=20, distillation=0.5),),
    optimizer="adamw",
    learning_rate=3e-4,
    weight_decay=0.05,
    schedule="cosine",
    patience=None,
    warm_up=200,
    validation_tiles=1001,
    augmentation="strong",
    untouched=0.2,
    blurred=0.3,
    compressed=0.35,
    mixup=0.3,
    label_smoothing=0.05,
    ema_decay=0.998,
    gradient_clip=5.0,
    bfloat16=True,
)

SCRATCH = replace(
    STRONG,
    name="scratch",
    init="random",
    stages=(
        Stage(64, steps=3000),
        Stage(112, steps=700, distillation=0.5),
        Stage(224, steps=400, batch_size=64, distillation=0.5, rate_ceiling=4e-4),
    ),
    learning_rate=1.5e-3,
    cosine_steps=5100,
    rate_floor=0.005,
    validation_steps=1000,
)

FINISH = replace(
    SCRATCH,
    name="finish",
    # What `make train` has written by then.
    init="runs/scratch/pathmnist_resnet18.safetensors",
    stages=(Stage(224, steps=2000, batch_size=64, distillation=0.5),),
    learning_rate=5e-4,
    cosine_steps=None,
    untouched=0.15,
    blurred=0.4,
    compressed=0.6,
    validation_steps=500,
)

REFINE = replace(
    FINISH,
    name="refine",
    # What `make train` has written by then.
    init="runs/finish/pathmnist_resnet18.safetensors",
    # At 112 pixels, conv1 and the pooling after it leave 28 x 28 positions, one for each pixel of a tile.
    stages=(Stage(112, steps=3600), Stage(224, steps=1200, batch_size=64, rate_ceiling=3e-4)),
    learning_rate=1e-3,
    cosine_steps=9000,
    rate_floor=0.0,
    untouched=0.2,
    compressed=0.5,
    mixup=0.2,
    validation_steps=1000,
)

TEACHER = replace(
    STRONG,
    name="teacher",
    network="efficientnet-lite0",
    stages=(Stage(64, steps=700), Stage(112, steps=950)),
    learning_rate=1e-3,
    weight_decay=0.02,
    warm_up=100,
    rate_floor=0.01,
    validation_steps=825,
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (CLASSIC, STRONG, SCRATCH, FINISH, REFINE, TEACHER)}
