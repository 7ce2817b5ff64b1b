"""Distribution shifts of the validation tiles, as at another site, for the comparison of runs.

Nearly every model is right on tiles of the training site. These shifts reveal differences between models without using
the test split.
"""

from collections.abc import Callable

import kornia.augmentation as K
import torch
from torch import Tensor

from training.augment import StainJitter

Shift = Callable[[Tensor], Tensor]


def _random_gain(tiles: Tensor) -> Tensor:
    return (tiles * (1 + 0.1 * (torch.rand(len(tiles), 3, 1, 1, device=tiles.device) - 0.5))).clamp(0, 1)


SHIFTS: dict[str, Shift] = {
    "stain": StainJitter(0.3),
    "brighter by 12 %": lambda tiles: (tiles * 1.12).clamp(0, 1),
    "darker by 12 %": lambda tiles: tiles * 0.88,
    "blur of 1 pixel": K.RandomGaussianBlur((7, 7), (1.0, 1.0), p=1.0),
    "JPEG quality 60": K.RandomJPEG((60.0, 60.0), p=1.0),
    "gain of 5 % per channel": _random_gain,
}


def shift(name: str, tiles: Tensor) -> Tensor:
    """Tiles `[N, 3, S, S]` in [0, 1] after one of `SHIFTS`. Deterministic."""
    with torch.random.fork_rng(devices=[tiles.device] if tiles.is_cuda else []):
        torch.manual_seed(0)
        return SHIFTS[name](tiles)
