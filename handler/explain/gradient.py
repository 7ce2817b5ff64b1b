"""Explanations from the gradient with respect to the network's input, by Captum."""

from collections.abc import Mapping
from typing import Any

import torch
from captum.attr import IntegratedGradients, Saliency
from torch import Tensor

from handler.explain.attribution import Attribution, Question
from handler.preprocess import normalise

# Path points that go through the network at once: bounds memory whatever the batch and the number of steps.
GRADIENT_BATCH = 32
BASELINES = {"black": 0.0, "white": 1.0}


def saliency(question: Question, _: Mapping[str, Any]) -> Attribution:
    """The gradient of the target's logit (Simonyan et al., arXiv 1312.6034), signed: `[N, 3, I, I]`."""
    inputs = question.inputs.detach().clone().requires_grad_()
    values = Saliency(question.network).attribute(inputs, target=question.targets, abs=False)
    return Attribution(values, "logit per input unit", [{} for _ in question.targets])


def integrated_gradients(question: Question, parameters: Mapping[str, Any]) -> Attribution:
    """Integrated Gradients (Sundararajan et al., arXiv 1703.01365), signed: `[N, 3, I, I]` in logits.

    `n_steps` points of the Gauss-Legendre rule on the straight path from `baseline` to the tile. Black and white
    are the pixel values 0 and 255 in the network's units; `mean` is zero after normalisation, which is ImageNet's
    mean colour. `completeness_residual` is the attribution's sum minus the difference of the logits, relative to
    that difference.
    """
    baseline = baseline_input(question, parameters["baseline"])
    values = IntegratedGradients(question.network).attribute(
        question.inputs,
        baselines=baseline,
        target=question.targets,
        n_steps=parameters["n_steps"],
        method="gausslegendre",
        internal_batch_size=GRADIENT_BATCH,
    )
    with torch.no_grad():
        start = question.network(baseline[:1])[0, question.targets]
    end = question.logits.gather(1, question.targets[:, None])[:, 0]
    difference = end - start
    residuals = (values.sum(dim=(1, 2, 3)) - difference).abs() / difference.abs().clamp(min=1e-6)
    facts = [
        {**parameters, "rule": "gausslegendre", "completeness_residual": residual} for residual in residuals.tolist()
    ]
    return Attribution(values, "logit", facts)


def baseline_input(question: Question, name: str) -> Tensor:
    """The baseline in the network's units, as one image per tile."""
    if name == "mean":
        return torch.zeros_like(question.inputs)
    return normalise(torch.full_like(question.inputs, BASELINES[name]), question.preprocessing)
