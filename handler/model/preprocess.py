"""The one definition of preprocessing: training, export and serving all call it.

PathMNIST holds 224-pixel tiles that were reduced to 28 pixels, and the same tile may reach the server at either
size. Every image is therefore first reduced to the size the model learned from, the canonical tile, by averaging
areas, and only then enlarged to the network's input (why: docs/preprocessing.md). Both steps are separable linear
maps, `rows @ image @ columns.T`, so they are exact, differentiable, and exportable as plain matrix products.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Kernel = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become the network's input. Stands beside the weights, as data.

    `canonical_size` is the tile side the training images had, `input_size` the side the network sees; `mean` and
    `std` normalise RGB in [0, 1].
    """

    canonical_size: int = 28
    input_size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.canonical_size < 1 or self.input_size < 1:
            raise ValueError("canonical_size and input_size must be positive")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError("mean and std need three values each, std positive")

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Preprocessing":
        """Read what `to_json` wrote; unknown or missing keys raise `TypeError`."""
        mean, std = (tuple(float(v) for v in values[key]) for key in ("mean", "std"))
        return cls(**{**values, "mean": mean, "std": std})

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}


def triangle(distance: Tensor) -> Tensor:
    """Linear interpolation's kernel, support 1."""
    return (1 - distance.abs()).clamp(min=0)


def resampling_matrix(source: int, target: int, kernel: Kernel) -> Tensor:
    """Weights `[target, source]` that resample a line of `source` pixels to `target` pixels.

    Pixel centres lie at half integers; when reducing, the kernel is widened by the scale so that it also removes
    what the smaller size cannot hold (Pillow's convention). Rows sum to one.
    """
    scale = source / target
    centres = (torch.arange(target, dtype=torch.float32) + 0.5) * scale - 0.5
    offsets = torch.arange(source, dtype=torch.float32)[None, :] - centres[:, None]
    weights = kernel(offsets / max(scale, 1.0))
    return weights / weights.sum(dim=1, keepdim=True)


def area_matrix(source: int, target: int) -> Tensor:
    """Weights `[target, source]` that average the area each target pixel covers.

    A weight is the overlap of two intervals, a trapezoid over the distance of their centres. It is continuous in the
    scale: no pixel jumps from one target to the next by a rounding error. Rows sum to one.
    """
    scale = source / target
    centres = (torch.arange(target, dtype=torch.float32) + 0.5) * scale
    pixels = torch.arange(source, dtype=torch.float32)[None, :] + 0.5
    distances = (pixels - centres[:, None]).abs()
    flat = (max(scale, 1.0) - min(scale, 1.0)) / 2
    overlap = ((1 + scale) / 2 - distances).relu() - (flat - distances).relu()
    return overlap / overlap.sum(dim=1, keepdim=True)


@lru_cache(maxsize=256)
def _area(source: int, target: int, device: torch.device) -> Tensor:
    return area_matrix(source, target).to(device)


@lru_cache(maxsize=16)
def _enlargement(source: int, target: int, device: torch.device) -> Tensor:
    return resampling_matrix(source, target, triangle).to(device)


def canonical_tile(image: Tensor, spec: Preprocessing) -> Tensor:
    """Reduce or enlarge an RGB image, or a batch of one size, to the canonical tile.

    `image` is uint8 `[..., H, W, 3]`; the result is float32 `[..., 3, S, S]` in [0, 1], S the canonical size. An image
    that is not square is squeezed, so that the whole of it is seen.
    """
    height, width, _ = image.shape[-3:]
    size = spec.canonical_size
    pixels = image.movedim(-1, -3).float()
    if (height, width) != (size, size):
        pixels = _area(height, size, image.device) @ pixels @ _area(width, size, image.device).T
    return pixels / 255


def network_input(tiles: Tensor, spec: Preprocessing) -> Tensor:
    """Enlarge canonical tiles `[N, 3, S, S]` in [0, 1] to the input size and normalise: float32 `[N, 3, I, I]`."""
    enlarge = _enlargement(tiles.shape[-1], spec.input_size, tiles.device)
    return normalise(enlarge @ tiles @ enlarge.T, spec)


def normalise(pixels: Tensor, spec: Preprocessing) -> Tensor:
    """Map RGB in [0, 1], `[..., 3, H, W]`, to the network's units."""
    mean = torch.tensor(spec.mean, device=pixels.device)[:, None, None]
    std = torch.tensor(spec.std, device=pixels.device)[:, None, None]
    return (pixels - mean) / std


def preprocess(images: list[Tensor], spec: Preprocessing) -> Tensor:
    """Turn N images of any sizes (uint8 `[H, W, 3]`) into the network's input, float32 `[N, 3, I, I]`."""
    return network_input(torch.stack([canonical_tile(image, spec) for image in images]), spec)
