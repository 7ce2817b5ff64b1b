"""Evaluating the explained score, and its slopes, at many points in one batch."""

import time
import warnings

import torch
from captum.attr import GuidedBackprop
from torch import Tensor, nn
from torchvision.models import ResNet

from handler.explain.secant import secant_forward
from handler.explain.types import Evaluation, Kind, Points

# Captum says so at every call, into the server's log.
warnings.filterwarnings("ignore", "Setting backward hooks on ReLU activations", module="captum")

# Each measurement of the time a point takes counts this much; load on the machine comes and goes.
LEARNING_RATE = 0.3


class Evaluator:
    """Evaluates batches with one network and learns how long they take."""

    def __init__(self, network: ResNet) -> None:
        self._network = network
        self._scored = _Scored(network)
        self._seconds_per_point: dict[Kind, float] = {}

    def evaluate(self, points: Points) -> Evaluation:
        """Scores and slopes of all points in one pass; the last row of a `secant` batch must have no coefficients."""
        start = time.perf_counter()
        evaluation = self._evaluate(points)
        if evaluation.scores.is_cuda:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / len(points.inputs)
        known = self._seconds_per_point.get(points.kind, seconds)
        self._seconds_per_point[points.kind] = known + LEARNING_RATE * (seconds - known)
        return evaluation

    def expected_seconds(self, kind: Kind, points: int) -> float:
        """From what earlier batches took; 0 before the first."""
        return points * self._seconds_per_point.get(kind, 0.0)

    def _evaluate(self, points: Points) -> Evaluation:
        if points.kind == "score":
            with torch.no_grad():
                scores = self._scored(points.inputs, points.coefficients)
                return Evaluation(scores, scores.new_empty(len(scores), 0))
        inputs = points.inputs.detach().requires_grad_()
        if points.kind == "guided":
            # Captum gives the slopes alone; who asks for guided slopes uses no score.
            slopes = GuidedBackprop(self._scored).attribute(inputs, additional_forward_args=(points.coefficients,))
            return Evaluation(torch.zeros(len(inputs), device=inputs.device), slopes.detach())
        forward = self._scored if points.kind == "gradient" else self._secant
        scores = forward(inputs, points.coefficients)
        (slopes,) = torch.autograd.grad(scores.sum(), inputs)
        return Evaluation(scores.detach(), slopes.to(scores.dtype))

    def _secant(self, inputs: Tensor, coefficients: Tensor) -> Tensor:
        return (secant_forward(self._network, inputs) * coefficients).sum(dim=1)


class _Scored(nn.Module):
    """The explained function: inputs `[n, 3, I, I]` and coefficients `[n, 9]` to scores `[n]`."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, coefficients: Tensor) -> Tensor:
        return (self.network(inputs) * coefficients).sum(dim=1)
