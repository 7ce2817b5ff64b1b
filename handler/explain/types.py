"""What every explanation method takes and returns."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor
from torchvision.models import ResNet

from handler.model.preprocess import Preprocessing

Display = Literal["positive", "magnitude", "signed"]
Kind = Literal["score", "gradient", "guided", "secant"]


@dataclass(frozen=True)
class Question:
    """N tiles, each with the score to explain: a weighted sum of its logits.

    `coefficients` `[N, 9]` hold 1 for the target class, and -1 for the class it is contrasted with, if any.
    `inputs` is `[N, 3, I, I]` in the network's units, `features` the `layer4` map `[N, 512, h, w]` of the same
    tiles, `logits` `[N, 9]`.
    """

    network: ResNet
    preprocessing: Preprocessing
    inputs: Tensor
    features: Tensor
    logits: Tensor
    coefficients: Tensor

    @property
    def scores(self) -> Tensor:
        """What is explained, `[N]`."""
        return (self.coefficients * self.logits).sum(dim=1)


@dataclass(frozen=True)
class Attribution:
    """One tile's signed map, `[h, w]` or `[3, h, w]` in `unit`, and what the method says of itself.

    `complete` is False where a time budget cut the work short.
    """

    values: Tensor
    unit: str
    facts: dict[str, Any]
    complete: bool = True


@dataclass(frozen=True)
class Points:
    """Inputs `[n, 3, I, I]` where the network is to be evaluated, each with the coefficients `[n, 9]` of its score.

    They have the network's type, and float64 for the kind `secant`.
    """

    kind: Kind
    inputs: Tensor
    coefficients: Tensor


@dataclass(frozen=True)
class Evaluation:
    """Scores `[n]` at the points asked for and their slopes `[n, 3, I, I]`, empty for the kind `score`."""

    scores: Tensor
    slopes: Tensor


class BudgetExceededError(Exception):
    """Thrown into a plan whose next points would not be ready in time."""


Parameters = Mapping[str, Any]
# The work on one tile: yields points, receives their evaluation, returns the map. Plans of many requests share the
# network's batches (schedule.py).
Plan = Generator[Points, Evaluation, Attribution]


@dataclass(frozen=True)
class Parameter:
    """An integer or a decimal number with bounds, or one of several words; the default's type says which.

    The default may lie outside the bounds where it stands for "not given". `excludes` names a parameter that has no
    meaning beside this one.
    """

    default: int | float | str
    minimum: float = 0
    maximum: float = 0
    choices: tuple[str, ...] = ()
    excludes: str = ""


@dataclass(frozen=True)
class Method:
    """An explanation method: either `closed_form`, which answers N tiles from what the prediction has computed, or a
    `plan` of one tile, which evaluates the network further.

    `display` names how a signed map becomes one number per pixel for the eye: `positive` drops what speaks against
    the class, `magnitude` sums absolute values over channels.
    """

    name: str
    display: Display
    closed_form: Callable[[Question], list[Attribution]] | None = None
    plan: Callable[[Question, Parameters], Plan] | None = None
    parameters: dict[str, Parameter] = field(default_factory=dict)
