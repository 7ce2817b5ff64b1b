"""What explanation methods take and return."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from handler.explain.display import Display
from handler.model.preprocess import Preprocessing

Kind = Literal["score", "gradient", "guided", "secant"]
Value = int | float | str
Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """One input of the network and the score to explain, a weighted sum of its logits.

    `inputs` is `[1, 3, I, I]` in the network's units. `coefficients` `[1, 9]` are 1 for the target class, -1 for the
    class it is contrasted with, if any, and 0 elsewhere. `score` `[1]` is their product with the logits.
    """

    preprocessing: Preprocessing
    inputs: Tensor
    coefficients: Tensor
    score: Tensor


@dataclass(frozen=True)
class Activations:
    """The last layers of the network for N inputs, each with the score to explain (see `Sample`).

    `features` is `layer4`'s output `[N, 512, h, w]`, `fc` the layer that makes logits of its average, `coefficients`
    `[N, 9]`, `scores` `[N]`.
    """

    fc: nn.Linear
    features: Tensor
    coefficients: Tensor
    scores: Tensor


@dataclass(frozen=True)
class Attribution:
    """The signed map of one input, `[h, w]` or `[3, h, w]`, in `unit`, with the method's own figures in `details`.

    `complete` is False if a time budget cut the work short.
    """

    values: Tensor
    unit: str
    details: dict[str, Any]
    complete: bool = True


@dataclass(frozen=True)
class EvaluationRequest:
    """Inputs `[n, 3, I, I]` at which to evaluate the score with coefficients `[n, 9]`.

    Both have the network's number type; inputs of the kind `secant` are float64.
    """

    kind: Kind
    inputs: Tensor
    coefficients: Tensor


@dataclass(frozen=True)
class Evaluation:
    """Scores `[n]` and their gradients `[n, 3, I, I]`; the kind `score` has no gradients, `guided` no scores."""

    scores: Tensor
    gradients: Tensor


class BudgetExceededError(Exception):
    """Thrown into a plan if its next evaluation would come after its deadline."""


# The work for one sample: yields requests, receives evaluations, returns the map. Plans of many HTTP requests share
# the network's batches (batching.py).
Plan = Generator[EvaluationRequest, Evaluation, Attribution]


@dataclass(frozen=True)
class Parameter:
    """An integer or a decimal number with bounds, or one of several words; the default's type says which.

    The default may lie outside the bounds if it means "not given". `excludes` names a parameter that must not be given
    together with this one.
    """

    default: Value
    minimum: float = 0
    maximum: float = 0
    choices: tuple[str, ...] = ()
    excludes: str = ""

    def accepts(self, value: Value) -> bool:
        """Whether a value is the default, one of the choices, or within the bounds."""
        if value == self.default or isinstance(value, str):
            return value == self.default or value in self.choices
        return self.minimum <= value <= self.maximum


@dataclass(frozen=True)
class Method:
    """An explanation method.

    It has either a `closed_form`, which explains N inputs from what the prediction computed, or a `plan`, which
    evaluates the network further for one input. `display` names how a signed map becomes one number per pixel:
    `positive` drops evidence against the class, `magnitude` sums absolute values over channels.
    """

    name: str
    display: Display
    closed_form: Callable[[Activations], list[Attribution]] | None = None
    plan: Callable[[Sample, Parameters], Plan] | None = None
    parameters: dict[str, Parameter] = field(default_factory=dict)

    def complete(self, given: Parameters) -> dict[str, Value]:
        """All parameters, those not given with their defaults. Raises `ValueError` for a wrong name or value."""
        for name, value in given.items():
            if name not in self.parameters:
                raise ValueError(f"{self.name} has no parameter {name!r}")
            if not self.parameters[name].accepts(value):
                raise ValueError(f"{name!r} of {self.name} cannot be {value!r}")
        return {name: spec.default for name, spec in self.parameters.items()} | dict(given)
