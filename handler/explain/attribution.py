"""What every explanation method takes and returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor
from torchvision.models import ResNet

from handler.preprocess import Preprocessing

Display = Literal["positive", "magnitude", "signed"]


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
    """Signed maps `[N, h, w]` or `[N, 3, h, w]` in `unit`, and for each tile what the method says of itself."""

    values: Tensor
    unit: str
    facts: list[dict[str, Any]]


@dataclass(frozen=True)
class Parameter:
    """An integer or a decimal number with bounds, or one of several words; the default's type says which."""

    default: int | float | str
    minimum: float = 0
    maximum: float = 0
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """An explanation method.

    `display` names how a signed map becomes one number per pixel for the eye: `positive` drops what speaks
    against the class, `magnitude` sums absolute values over channels. `closed_form` methods cost no backward pass,
    so that all nine classes may be asked for at once.
    """

    name: str
    explain: Callable[[Question, Mapping[str, Any]], Attribution]
    display: Display
    closed_form: bool = False
    parameters: dict[str, Parameter] = field(default_factory=dict)
