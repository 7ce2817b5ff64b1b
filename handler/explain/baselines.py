"""Inputs that show no evidence for any class."""

import torch
from torch import Tensor
from torch.nn import functional

from handler.explain.types import Parameter
from handler.model.preprocess import Preprocessing, normalise

LEVELS = {"black": 0.0, "white": 1.0}
BASELINES = (*LEVELS, "mean", "blur")
# In pixels of the network's input: two pixels of a canonical tile, which leaves its colours and removes its structure.
BLUR_SIGMA, BLUR_RADIUS = 16.0, 48


def baseline_parameter(default: str) -> Parameter:
    return Parameter(default=default, choices=BASELINES)


def baseline_input(name: str, inputs: Tensor, preprocessing: Preprocessing) -> Tensor:
    """The baseline for inputs `[N, 3, I, I]`, of the same shape and in the same units.

    `black` and `white` are the pixel values 0 and 255. `mean` is zero after normalisation: ImageNet's mean colour, not
    black. `blur` is the tile without its structure.
    """
    if name == "mean":
        return torch.zeros_like(inputs)
    if name == "blur":
        return gaussian_blur(inputs, BLUR_SIGMA, BLUR_RADIUS)
    return normalise(torch.full_like(inputs, LEVELS[name]), preprocessing)


def gaussian_blur(images: Tensor, sigma: float, radius: int) -> Tensor:
    """Images `[N, C, H, W]` convolved with a normal density, cut at `radius` pixels; edges are mirrored."""
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    weights = torch.softmax(-(offsets**2) / (2 * sigma**2), dim=0)
    channels = images.shape[1]
    padded = functional.pad(images, (radius,) * 4, mode="reflect")
    rows = functional.conv2d(padded, weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    return functional.conv2d(rows, weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
