"""What every explanation method takes and returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor
from torchvision.models import ResNet

from handler.preprocess import Preprocessing


@dataclass(frozen=True)
class Question:
    """N tiles to explain, each for one class.

    `inputs` is `[N, 3, I, I]` in the network's units, `features` the `layer4` map `[N, 512, h, w]` of the same
    tiles, `logits` `[N, 9]`, `targets` int64 `[N]`.
    """

    network: ResNet
    preprocessing: Preprocessing
    inputs: Tensor
    features: Tensor
    logits: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Attribution:
    """Signed maps `[N, h, w]` or `[N, 3, h, w]` in `unit`, and for each tile what the method says of itself."""

    values: Tensor
    unit: str
    facts: list[dict[str, Any]]


@dataclass(frozen=True)
class Parameter:
    """An integer with bounds, or one of several words."""

    default: int | str
    minimum: int = 0
    maximum: int = 0
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """An explanation method.

    `display` names how a signed map becomes one number per pixel for the eye: `positive` drops what speaks
    against the class, `magnitude` sums absolute values over channels.
    """

    name: str
    explain: Callable[[Question, Mapping[str, Any]], Attribution]
    display: Literal["positive", "magnitude"]
    parameters: dict[str, Parameter] = field(default_factory=dict)
