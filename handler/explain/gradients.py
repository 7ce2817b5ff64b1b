"""Explanations from the gradient with respect to the network's input at the tile, or near it."""

from typing import Any

import torch
from torch import Tensor

from handler.explain.batching import chunks
from handler.explain.types import (
    Attribution,
    BudgetExceededError,
    Kind,
    Parameters,
    Plan,
    Points,
    Question,
)

UNIT = "logit per input unit"
# Noise is drawn anew for each request from the same seed: the same request has the same answer.
SEED = 0


def saliency(question: Question, _: Parameters) -> Plan:
    """The gradient of the score (Simonyan et al., arXiv 1312.6034), signed: `[3, I, I]`."""
    return Attribution((yield from _slopes(question, "gradient")), UNIT, _count(1))


def input_x_gradient(question: Question, _: Parameters) -> Plan:
    """Input times gradient (Shrikumar et al., arXiv 1605.01713), signed: `[3, I, I]` in logits."""
    gradient = yield from _slopes(question, "gradient")
    return Attribution(question.inputs[0] * gradient, "logit", _count(1))


def guided_backprop(question: Question, _: Parameters) -> Plan:
    """Guided backpropagation (Springenberg et al., arXiv 1412.6806) by Captum: `[3, I, I]`.

    No gradient: ReLUs also stop what is negative on the way back. It sharpens edges of the tile and depends little on
    the class or the weights (Adebayo et al., arXiv 1810.03292).
    """
    return Attribution((yield from _slopes(question, "guided")), UNIT, _count(1))


def smoothgrad(question: Question, parameters: Parameters) -> Plan:
    """SmoothGrad (Smilkov et al., arXiv 1706.03825): the mean gradient at `n_samples` noisy copies of the tile.

    `noise` is the noise's standard deviation as a share of the tile's range. `standard_error` is that of the mean,
    as the ratio of the norms of the two maps. Within a time budget it may take fewer samples, and says so.
    """
    tile = question.inputs
    generator = torch.Generator().manual_seed(SEED)
    scale = parameters["noise"] * (tile.max() - tile.min())
    total, squares, taken = torch.zeros_like(tile[0]), torch.zeros_like(tile[0]), 0
    for chunk in chunks(parameters["n_samples"]):
        noise = torch.randn((len(chunk), *tile.shape[1:]), generator=generator).to(tile)
        try:
            evaluation = yield Points("gradient", tile + scale * noise, question.coefficients.expand(len(chunk), -1))
        except BudgetExceededError:
            if taken == 0:
                raise
            break
        total += evaluation.slopes.sum(dim=0)
        squares += evaluation.slopes.square().sum(dim=0)
        taken += len(chunk)
    mean = total / taken
    facts = {"noise": parameters["noise"], "n_samples": taken, **_count(taken)}
    if taken > 1:
        variance = (squares / taken - mean.square()).clamp(min=0) / (taken - 1)
        facts["standard_error"] = float(variance.sum().sqrt() / mean.norm().clamp(min=1e-30))
    return Attribution(mean, UNIT, facts, complete=taken == parameters["n_samples"])


def _slopes(question: Question, kind: Kind) -> Any:
    evaluation = yield Points(kind, question.inputs, question.coefficients)
    slopes: Tensor = evaluation.slopes[0]
    return slopes


def _count(evaluations: int) -> dict[str, Any]:
    return {"gradient_evaluations": evaluations}
