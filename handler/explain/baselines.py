"""Inputs that stand for the absence of evidence."""

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from handler.explain.types import Parameter, Question
from handler.model.preprocess import normalise

LEVELS = {"black": 0.0, "white": 1.0}
BASELINES = (*LEVELS, "mean", "blur")
# In pixels of the network's input; two pixels of a canonical tile, which leaves colour and no structure.
BLUR_SIGMA, BLUR_KERNEL = 16.0, 97


def baseline_parameter(default: str) -> Parameter:
    return Parameter(default=default, choices=BASELINES)


def baseline_input(question: Question, name: str) -> Tensor:
    """The baseline in the network's units, `[N, 3, I, I]`.

    `black` and `white` are the pixel values 0 and 255. `mean` is zero after normalisation, which is ImageNet's mean
    colour and not black, as is often assumed. `blur` is the tile without its structure.
    """
    if name == "mean":
        return torch.zeros_like(question.inputs)
    if name == "blur":
        return gaussian_blur(question.inputs, [BLUR_KERNEL, BLUR_KERNEL], [BLUR_SIGMA, BLUR_SIGMA])
    return normalise(torch.full_like(question.inputs, LEVELS[name]), question.preprocessing)
