"""Evaluates the explained score and its gradients for many inputs in one batch."""

import time
import warnings

import torch
from torch import Tensor, nn

from handler.explain.secant import secant_forward
from handler.explain.types import Evaluation, EvaluationRequest, Kind
from handler.model.resnet import ResNet

# Weight of the newest measurement in the average time of an input; load on the machine comes and goes.
NEWEST = 0.3


class Evaluator:
    """Evaluates batches with one network and measures how long they take."""

    def __init__(self, network: ResNet) -> None:
        self._network = network
        self._score = _Score(network)
        self._seconds_per_input: dict[Kind, float] = {}

    def evaluate(self, request: EvaluationRequest) -> Evaluation:
        """Scores and gradients of all inputs in one pass; the last row of a `secant` batch must have coefficients 0."""
        start = time.perf_counter()
        evaluation = self._evaluate(request)
        if evaluation.scores.is_cuda:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / len(request.inputs)
        average = self._seconds_per_input.get(request.kind, seconds)
        self._seconds_per_input[request.kind] = average + NEWEST * (seconds - average)
        return evaluation

    def expected_seconds(self, kind: Kind, count: int) -> float:
        """How long `count` inputs will take, by the time of earlier batches; 0 before the first."""
        return count * self._seconds_per_input.get(kind, 0.0)

    def _evaluate(self, request: EvaluationRequest) -> Evaluation:
        match request.kind:
            case "score":
                return self._scores(request)
            case "guided":
                return self._guided(request)
            case _:
                return self._gradients(request)

    def _scores(self, request: EvaluationRequest) -> Evaluation:
        with torch.no_grad():
            scores = self._score(request.inputs, request.coefficients)
        return Evaluation(scores, scores.new_empty(len(scores), 0))

    def _guided(self, request: EvaluationRequest) -> Evaluation:
        # Imported here, because Captum and what it imports take 0.6 s and 30 MB, and no other method needs it.
        from captum.attr import GuidedBackprop

        inputs = request.inputs.detach().requires_grad_()
        with warnings.catch_warnings():
            # Captum warns about its hooks at every call.
            warnings.filterwarnings("ignore", "Setting backward hooks on ReLU activations", module="captum")
            gradients = GuidedBackprop(self._score).attribute(inputs, additional_forward_args=(request.coefficients,))
        return Evaluation(torch.zeros(len(inputs), device=inputs.device), gradients.detach())

    def _gradients(self, request: EvaluationRequest) -> Evaluation:
        inputs = request.inputs.detach().requires_grad_()
        if request.kind == "secant":
            scores = (secant_forward(self._network, inputs) * request.coefficients).sum(dim=1)
        else:
            scores = self._score(inputs, request.coefficients)
        (gradients,) = torch.autograd.grad(scores.sum(), inputs)
        return Evaluation(scores.detach(), gradients.to(scores.dtype))


class _Score(nn.Module):
    """The explained function: inputs `[n, 3, I, I]` and coefficients `[n, 9]` to scores `[n]`."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, coefficients: Tensor) -> Tensor:
        return (self.network(inputs) * coefficients).sum(dim=1)
