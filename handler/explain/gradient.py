"""Explanations from the gradient with respect to the network's input, by Captum."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency
from torch import Tensor
from torchvision.models import ResNet
from torchvision.transforms.functional import gaussian_blur

from handler.explain.attribution import Attribution, Question
from handler.preprocess import normalise

# Path points that go through the network at once: bounds memory whatever the batch and the number of steps.
GRADIENT_BATCH = 32
LEVELS = {"black": 0.0, "white": 1.0}
# In pixels of the network's input; two pixels of a canonical tile, which leaves colour and no structure.
BLUR_SIGMA, BLUR_KERNEL = 16.0, 97


def saliency(question: Question, _: Mapping[str, Any]) -> Attribution:
    """The gradient of the score (Simonyan et al., arXiv 1312.6034), signed: `[N, 3, I, I]`."""
    values = Saliency(score_of(question.network)).attribute(
        _leaf(question.inputs), additional_forward_args=(question.coefficients,), abs=False
    )
    return Attribution(values, "logit per input unit", [{} for _ in values])


def input_x_gradient(question: Question, _: Mapping[str, Any]) -> Attribution:
    """Input times gradient (Shrikumar et al., arXiv 1605.01713), signed: `[N, 3, I, I]` in logits."""
    values = InputXGradient(score_of(question.network)).attribute(
        _leaf(question.inputs), additional_forward_args=(question.coefficients,)
    )
    return Attribution(values, "logit", [{} for _ in values])


def integrated_gradients(question: Question, parameters: Mapping[str, Any]) -> Attribution:
    """Integrated Gradients (Sundararajan et al., arXiv 1703.01365), signed: `[N, 3, I, I]` in logits.

    `n_steps` points of the Gauss-Legendre rule on the straight path from `baseline` to the tile.
    `completeness_residual` is the attribution's sum minus the difference of the scores at both ends, relative to
    that difference.
    """
    score = score_of(question.network)
    baselines = baseline_input(question, parameters["baseline"])
    values = IntegratedGradients(score).attribute(
        question.inputs,
        baselines=baselines,
        additional_forward_args=(question.coefficients,),
        n_steps=parameters["n_steps"],
        method="gausslegendre",
        internal_batch_size=GRADIENT_BATCH,
    )
    with torch.no_grad():
        difference = question.scores - score(baselines, question.coefficients)
    residuals = (values.sum(dim=(1, 2, 3)) - difference).abs() / difference.abs().clamp(min=1e-6)
    facts = [
        {**parameters, "rule": "gausslegendre", "completeness_residual": residual} for residual in residuals.tolist()
    ]
    return Attribution(values, "logit", facts)


def score_of(network: ResNet) -> Callable[[Tensor, Tensor], Tensor]:
    """The explained function: inputs `[N, 3, I, I]` and coefficients `[N, 9]` to scores `[N]`."""

    def score(inputs: Tensor, coefficients: Tensor) -> Tensor:
        return (network(inputs) * coefficients).sum(dim=1)

    return score


def baseline_input(question: Question, name: str) -> Tensor:
    """The baseline in the network's units, one image per tile.

    `black` and `white` are the pixel values 0 and 255. `mean` is zero after normalisation, which is ImageNet's mean
    colour and not black, as is often assumed. `blur` is the tile without its structure.
    """
    if name == "mean":
        return torch.zeros_like(question.inputs)
    if name == "blur":
        return gaussian_blur(question.inputs, [BLUR_KERNEL, BLUR_KERNEL], [BLUR_SIGMA, BLUR_SIGMA])
    return normalise(torch.full_like(question.inputs, LEVELS[name]), question.preprocessing)


def _leaf(inputs: Tensor) -> Tensor:
    return inputs.detach().clone().requires_grad_()
