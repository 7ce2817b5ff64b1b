"""The one definition of preprocessing: training, export and serving all call it.

MedMNIST made PathMNIST's 28-pixel tiles from originals of 224 pixels with Pillow's bilinear `resize`, and the same tile
may reach the server at either size. Every image is therefore first reduced to the size the model learned from, the
canonical tile, in the way Pillow does it, and then enlarged to the network's input (why: docs/preprocessing.md).

The canonical tile is the same in every runtime, bit for bit: its pixels and weights are multiples of 2^-16 below 256,
so all sums of their products are exact in float32, whatever the order.
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

# Weights of a reduction are multiples of this. Pixels have 8 bits, float32 24.
WEIGHT_UNIT = 2.0**-16
# A request may choose the size of its image, so the cache of reductions is bounded: 32 matrices of 256 KiB.
CACHED_MATRICES = 32
CACHED_WEIGHTS = 2**16


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become the network's input. Stored beside the weights, as data.

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


def centre_distances(source: int, target: int) -> Tensor:
    """How far each source pixel's centre is from each target pixel's, `[target, source]`, in the larger pixel's width.

    Pixel centres are at half integers. When reducing, a target pixel is the larger, so a kernel is widened by the scale
    and also removes what the smaller size cannot hold (Pillow's convention).
    """
    pixels = 2 * torch.arange(source, dtype=torch.float32) + 1
    centres = 2 * torch.arange(target, dtype=torch.float32) + 1
    # Whole numbers up to here, so every runtime computes the same weights.
    offsets = target * pixels[None, :] - source * centres[:, None]
    return offsets / (2 * max(source, target))


def _shares(weights: Tensor) -> Tensor:
    return weights / weights.sum(dim=1, keepdim=True)


def resampling_matrix(source: int, target: int, kernel: Kernel) -> Tensor:
    """Weights `[target, source]` that resample a line of `source` pixels to `target` pixels. Rows sum to one."""
    return _shares(kernel(centre_distances(source, target)))


def reducing_matrix(source: int, target: int, unit: float = WEIGHT_UNIT) -> Tensor:
    """Weights `[target, source]` of Pillow's bilinear `resize`, in multiples of `unit`.

    TorchScript compiles it too (`export.bundle`), so the unit is an argument and the kernel is not.
    """
    return (_shares(triangle(centre_distances(source, target))) / unit).round() * unit


def reduce(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Resample pixels `[..., H, W]` in [0, 255] to whole grey levels `[..., S, S]`, as Pillow does.

    `rows` `[S, H]` and `columns` `[S, W]` are of `reducing_matrix`. Like Pillow's own, each of the two passes ends with
    8-bit pixels, halves rounded up.
    """
    narrow = (pixels @ columns.T + 0.5).floor()
    return (rows @ narrow + 0.5).floor()


def _reduction(source: int, target: int, device: torch.device) -> Tensor:
    if source * target > CACHED_WEIGHTS:
        return reducing_matrix(source, target).to(device)
    return _cached_reduction(source, target, device)


@lru_cache(maxsize=CACHED_MATRICES)
def _cached_reduction(source: int, target: int, device: torch.device) -> Tensor:
    return reducing_matrix(source, target).to(device)


@lru_cache(maxsize=16)
def _enlargement(source: int, target: int, device: torch.device) -> Tensor:
    return resampling_matrix(source, target, triangle).to(device)


def canonical_tile(image: Tensor, spec: Preprocessing) -> Tensor:
    """Reduce or enlarge an RGB image, or a batch of one size, to the canonical tile.

    `image` is uint8 `[..., H, W, 3]`. The result is float32 `[..., 3, S, S]` in [0, 1] with S the canonical size,
    within one grey level of Pillow's `resize((S, S), BILINEAR)`. An image that is not square is squeezed, so that the
    whole of it is seen.
    """
    height, width, _ = image.shape[-3:]
    size = spec.canonical_size
    pixels = image.movedim(-1, -3).float()
    if (height, width) != (size, size):
        pixels = reduce(pixels, _reduction(height, size, image.device), _reduction(width, size, image.device))
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
