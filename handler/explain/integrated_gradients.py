"""Integrated Gradients, by a fixed rule or adaptively.

The integrand is the network's gradient along the straight path from a baseline to the tile. In a ReLU network it is
piecewise constant with thousands of jumps, so rules for smooth functions lose their order: the error of Gauss-Legendre
falls with the first power of the number of points. The adaptive rule takes mean gradients over segments of the path
(segments.py), which is of second order, and halves segments where the gradient still changes. docs/explanations.md has
the measurements.
"""

from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor

from handler.explain.baselines import baseline_input
from handler.explain.batching import chunks
from handler.explain.segments import SegmentedPath
from handler.explain.types import (
    Attribution,
    BudgetExceededError,
    Evaluation,
    EvaluationRequest,
    Parameters,
    Plan,
    Sample,
)

ADAPTIVE = 0
# Smaller changes of the score count as this one: a float32 logit is rounded at 1e-6 to 1e-5, which is not an error of
# the map.
SMALLEST_CHANGE = 1e-3


def integrated_gradients(sample: Sample, parameters: Parameters) -> Plan:
    """Integrated Gradients (Sundararajan et al., arXiv 1703.01365), signed: `[3, I, I]` in logits.

    With `n_steps`, that many points of the Gauss-Legendre rule, as in Captum. Without, the adaptive rule, until the
    completeness residual and the estimated error of the map are both within `tolerance`, or until `max_evaluations` of
    the gradient or the time budget would be exceeded.

    `completeness_residual` is the map's sum minus the difference of the scores at both ends, relative to that
    difference (Captum's convergence delta, made relative); `map_error_estimate` is relative to the map's Euclidean
    norm. `converged` is null for the fixed rule, which cannot tell.
    """
    baseline = baseline_input(parameters["baseline"], sample.inputs, sample.preprocessing)
    if parameters["n_steps"] == ADAPTIVE:
        return (yield from _adaptive(sample, baseline, parameters))
    return (yield from _gauss_legendre(sample, baseline, parameters))


def _gauss_legendre(sample: Sample, baseline: Tensor, parameters: Parameters) -> Plan:
    n_steps = parameters["n_steps"]
    abscissae, weights = np.polynomial.legendre.leggauss(n_steps)
    path = sample.inputs - baseline
    mean = torch.zeros_like(path[0])
    for chunk in chunks(n_steps):
        nodes = path.new_tensor((abscissae[chunk.start : chunk.stop] + 1) / 2)
        share = path.new_tensor(weights[chunk.start : chunk.stop] / 2)
        coefficients = sample.coefficients.expand(len(chunk), -1)
        evaluation = yield EvaluationRequest("gradient", baseline + nodes[:, None, None, None] * path, coefficients)
        mean += torch.einsum("n,nchw->chw", share, evaluation.gradients)
    values = path[0] * mean
    start = yield EvaluationRequest("score", baseline, sample.coefficients)
    details = {
        "rule": "gauss-legendre",
        "baseline": parameters["baseline"],
        "n_steps": n_steps,
        "gradient_evaluations": n_steps,
        "completeness_residual": completeness_residual(values, sample.score - start.scores),
        "converged": None,
    }
    return Attribution(values, "logit", details)


def _adaptive(sample: Sample, baseline: Tensor, parameters: Parameters) -> Plan:
    path = SegmentedPath(sample, baseline)
    yield from path.evaluate_first()
    change = sample.score - path.start_score
    stopped_by = yield from _refine(path, change, parameters)
    details = {
        "rule": "adaptive-secant",
        "baseline": parameters["baseline"],
        "tolerance": parameters["tolerance"],
        "segments": len(path.segments),
        "gradient_evaluations": path.evaluations,
        "completeness_residual": completeness_residual(path.values, change),
        "map_error_estimate": path.error,
        "converged": stopped_by == "tolerance",
        "stopped_by": stopped_by,
    }
    return Attribution(path.values, "logit", details, complete=stopped_by != "budget_ms")


def _refine(
    path: SegmentedPath, change: Tensor, parameters: Parameters
) -> Generator[EvaluationRequest, Evaluation, str]:
    """Halve segments until the map is within the tolerance or a limit is met; returns which it was."""
    while max(completeness_residual(path.values, change), path.error) > parameters["tolerance"]:
        chains = path.halve_worst()
        if not chains:
            return "rounding"
        if path.evaluations + sum(map(len, chains)) > parameters["max_evaluations"]:
            return "max_evaluations"
        try:
            yield from path.evaluate(chains)
        except BudgetExceededError:
            return "budget_ms"
    return "tolerance"


def completeness_residual(values: Tensor, change: Tensor) -> float:
    """The gap between the map's sum and the change of the score along the path, relative to that change."""
    gap = (values.double().sum() - change.double().sum()).abs()
    return float(gap / change.double().sum().abs().clamp(min=SMALLEST_CHANGE))
