"""Explanations from the gradient with respect to the network's input, at the tile or near it."""

from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor

from handler.explain.batching import chunks
from handler.explain.types import (
    Attribution,
    BudgetExceededError,
    Evaluation,
    EvaluationRequest,
    Kind,
    Parameters,
    Plan,
    Sample,
)

UNIT = "logit per input unit"
# Every request draws its noise from the same seed, so the same request has the same answer.
SEED = 0
SMALLEST_NORM = 1e-30


def saliency(sample: Sample, _: Parameters) -> Plan:
    """The gradient of the score (Simonyan et al., arXiv 1312.6034), signed: `[3, I, I]`."""
    return Attribution((yield from _gradient(sample, "gradient")), UNIT, _count(1))


def input_x_gradient(sample: Sample, _: Parameters) -> Plan:
    """Input times gradient (Shrikumar et al., arXiv 1605.01713), signed: `[3, I, I]` in logits."""
    gradient = yield from _gradient(sample, "gradient")
    return Attribution(sample.inputs[0] * gradient, "logit", _count(1))


def guided_backprop(sample: Sample, _: Parameters) -> Plan:
    """Guided backpropagation (Springenberg et al., arXiv 1412.6806) by Captum: `[3, I, I]`.

    It is not a gradient: ReLUs also stop negative values on the way back. It sharpens edges of the tile and depends
    little on the class or the weights (Adebayo et al., arXiv 1810.03292).
    """
    return Attribution((yield from _gradient(sample, "guided")), UNIT, _count(1))


def smoothgrad(sample: Sample, parameters: Parameters) -> Plan:
    """SmoothGrad (Smilkov et al., arXiv 1706.03825): the mean gradient at `n_samples` noisy copies of the tile.

    `noise` is the standard deviation of the noise as a share of the tile's range. `standard_error` is that of the mean,
    as the ratio of the norms of the two maps. Within a time budget it may take fewer samples than asked; `n_samples` of
    the answer says how many.
    """
    inputs = sample.inputs
    generator = torch.Generator().manual_seed(SEED)
    scale = parameters["noise"] * (inputs.max() - inputs.min())
    total, squares, taken = torch.zeros_like(inputs[0]), torch.zeros_like(inputs[0]), 0
    for chunk in chunks(parameters["n_samples"]):
        noise = torch.randn((len(chunk), *inputs.shape[1:]), generator=generator).to(inputs)
        coefficients = sample.coefficients.expand(len(chunk), -1)
        try:
            evaluation = yield EvaluationRequest("gradient", inputs + scale * noise, coefficients)
        except BudgetExceededError:
            if taken == 0:
                raise
            break
        total += evaluation.gradients.sum(dim=0)
        squares += evaluation.gradients.square().sum(dim=0)
        taken += len(chunk)
    mean = total / taken
    details = {"noise": parameters["noise"], "n_samples": taken, **_count(taken)}
    if taken > 1:
        variance = (squares / taken - mean.square()).clamp(min=0) / (taken - 1)
        details["standard_error"] = float(variance.sum().sqrt() / mean.norm().clamp(min=SMALLEST_NORM))
    return Attribution(mean, UNIT, details, complete=taken == parameters["n_samples"])


def _gradient(sample: Sample, kind: Kind) -> Generator[EvaluationRequest, Evaluation, Tensor]:
    evaluation = yield EvaluationRequest(kind, sample.inputs, sample.coefficients)
    return evaluation.gradients[0]


def _count(evaluations: int) -> dict[str, Any]:
    return {"gradient_evaluations": evaluations}
