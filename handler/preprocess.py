"""The one definition of preprocessing: training, export and serving all call it.

PathMNIST holds 224-pixel tiles that were reduced to 28 pixels, and the same tile may reach the server at either
size. Every image is therefore first reduced (or enlarged) to the size the model learned from, the canonical tile,
and only then enlarged to the network's input. Both steps are separable linear maps, `rows @ image @ columns.T`,
so they are exact, differentiable, and exportable as plain matrix products.
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


def cubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5, support 2 (doi 10.1109/TASSP.1981.1163711)."""
    x = distance.abs().clamp(max=2)
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, inner, outer)


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


@lru_cache(maxsize=256)
def _cached_matrix(source: int, target: int, kernel: Kernel, device: torch.device) -> Tensor:
    return resampling_matrix(source, target, kernel).to(device)


def canonical_tile(image: Tensor, spec: Preprocessing) -> Tensor:
    """Reduce or enlarge one RGB image to the canonical tile.

    `image` is uint8 `[H, W, 3]` of any size; the result is float32 `[3, S, S]` in [0, 1], S the canonical size. An
    image that is not square is squeezed, so that the whole of it is seen.
    """
    height, width, _ = image.shape
    size = spec.canonical_size
    pixels = image.permute(2, 0, 1).float()
    if (height, width) != (size, size):
        rows = _cached_matrix(height, size, cubic, image.device)
        columns = _cached_matrix(width, size, cubic, image.device)
        pixels = (rows @ pixels @ columns.T).clamp(0, 255)
    return pixels / 255


def network_input(tiles: Tensor, spec: Preprocessing) -> Tensor:
    """Enlarge canonical tiles `[N, 3, S, S]` in [0, 1] to the input size and normalise: float32 `[N, 3, I, I]`."""
    enlarge = _cached_matrix(tiles.shape[-1], spec.input_size, triangle, tiles.device)
    return normalise(enlarge @ tiles @ enlarge.T, spec)


def normalise(pixels: Tensor, spec: Preprocessing) -> Tensor:
    """Map RGB in [0, 1], `[..., 3, H, W]`, to the network's units."""
    mean = torch.tensor(spec.mean, device=pixels.device)[:, None, None]
    std = torch.tensor(spec.std, device=pixels.device)[:, None, None]
    return (pixels - mean) / std


def preprocess(images: list[Tensor], spec: Preprocessing) -> Tensor:
    """Turn N images of any sizes (uint8 `[H, W, 3]`) into the network's input, float32 `[N, 3, I, I]`."""
    return network_input(torch.stack([canonical_tile(image, spec) for image in images]), spec)
