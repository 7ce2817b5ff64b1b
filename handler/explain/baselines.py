"""Inputs that show no evidence for any class."""

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from handler.explain.types import Parameter
from handler.model.preprocess import Preprocessing, normalise

LEVELS = {"black": 0.0, "white": 1.0}
BASELINES = (*LEVELS, "mean", "blur")
# In pixels of the network's input: two pixels of a canonical tile, which leaves its colours and removes its structure.
BLUR_SIGMA, BLUR_KERNEL = 16.0, 97


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
        return gaussian_blur(inputs, [BLUR_KERNEL, BLUR_KERNEL], [BLUR_SIGMA, BLUR_SIGMA])
    return normalise(torch.full_like(inputs, LEVELS[name]), preprocessing)
