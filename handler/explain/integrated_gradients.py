"""Integrated Gradients, by a fixed rule or adaptively.

The integrand is the network's gradient along the straight path from a baseline to the tile. In a ReLU network it is
piecewise constant with thousands of jumps, so rules built for smooth functions gain nothing from their order: the
error of Gauss-Legendre falls with the first power of the number of points. The adaptive rule takes mean slopes over
segments of the path instead of gradients at points (secant.py), which is of second order, and adds segments where the
slopes still change (docs/explanations.md has the measurements).
"""

import math
from collections.abc import Generator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handler.explain.baselines import baseline_input
from handler.explain.batching import MAX_BATCH, chunks
from handler.explain.types import (
    Attribution,
    BudgetExceededError,
    Evaluation,
    Parameters,
    Plan,
    Points,
    Question,
)

ADAPTIVE = 0
# The ends of the first segments.
FIRST_NODES = tuple(np.linspace(0, 1, 16).tolist())
# The estimate of a segment's error from its indicator, the change of the slope across it. On the shipped model it lies
# between 1 and 2 times the true error (docs/explanations.md).
INDICATOR_POWER, INDICATOR_FACTOR = 1.25, 0.65
# A logit in float32 is rounded at 1e-6 to 1e-5, which is no fault of the map.
SMALLEST_CHANGE = 1e-3
# Doerfler's marking: the worst segments that make up this share of the squared error are halved.
MARKED_SHARE = 0.5


@dataclass(frozen=True)
class Segment:
    """A part of the path, and the score's mean slope over it `[3, I, I]`."""

    start: float
    end: float
    slope: Tensor

    @property
    def length(self) -> float:
        return self.end - self.start

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2


def integrated_gradients(question: Question, parameters: Parameters) -> Plan:
    """Integrated Gradients (Sundararajan et al., arXiv 1703.01365), signed: `[3, I, I]` in logits.

    With `n_steps` that many points of the Gauss-Legendre rule, as Captum has it; without, the adaptive rule, until the
    completeness residual and the estimated error of the map are both under `tolerance`, or `max_evaluations` of the
    gradient would be exceeded, or the time budget is.

    `completeness_residual` is the map's sum minus the difference of the scores at both ends, relative to that
    difference; `map_error_estimate` is relative to the map's Euclidean norm. `converged` is null for the fixed rule,
    which has no way to know.
    """
    baseline = baseline_input(question, parameters["baseline"])
    if parameters["n_steps"] == ADAPTIVE:
        return (yield from _adaptive(question, baseline, parameters))
    return (yield from _gauss_legendre(question, baseline, parameters))


def _gauss_legendre(question: Question, baseline: Tensor, parameters: Parameters) -> Plan:
    n_steps = parameters["n_steps"]
    abscissae, weights = np.polynomial.legendre.leggauss(n_steps)
    path = question.inputs - baseline
    mean = torch.zeros_like(path[0])
    for chunk in chunks(n_steps):
        nodes = path.new_tensor((abscissae[chunk.start : chunk.stop] + 1) / 2)
        share = path.new_tensor(weights[chunk.start : chunk.stop] / 2)
        evaluation = yield _points(question, baseline + nodes[:, None, None, None] * path, "gradient")
        mean += torch.einsum("n,nchw->chw", share, evaluation.slopes)
    values = path[0] * mean
    start = yield Points("score", baseline, question.coefficients)
    facts = {
        "rule": "gauss-legendre",
        "baseline": parameters["baseline"],
        "n_steps": n_steps,
        "gradient_evaluations": n_steps,
        "completeness_residual": _residual(values, question.scores - start.scores),
        "converged": None,
    }
    return Attribution(values, "logit", facts)


def _adaptive(question: Question, baseline: Tensor, parameters: Parameters) -> Plan:
    tolerance = parameters["tolerance"]
    path = question.inputs - baseline
    nodes = list(FIRST_NODES)
    evaluation = yield from _evaluate_chains(question, baseline, [nodes])
    segments = _segments(nodes, evaluation.slopes)
    change = question.scores - evaluation.scores[0]
    used, stopped = len(nodes), "tolerance"
    while True:
        values = path[0] * _mean_slope(segments)
        residual = _residual(values, change)
        errors = _segment_errors(segments, path[0], values)
        error = math.sqrt(sum(item**2 for item in errors))
        if max(residual, error) <= tolerance:
            break
        chains = _halved(segments, _worst(errors))
        if not chains:
            stopped = "rounding"
            break
        if used + sum(map(len, chains)) > parameters["max_evaluations"]:
            stopped = "max_evaluations"
            break
        try:
            segments = yield from _refine(question, baseline, segments, chains)
        except BudgetExceededError:
            stopped = "budget_ms"
            break
        used += sum(map(len, chains))
    facts = {
        "rule": "adaptive-secant",
        "baseline": parameters["baseline"],
        "tolerance": tolerance,
        "segments": len(segments),
        "gradient_evaluations": used,
        "completeness_residual": residual,
        "map_error_estimate": error,
        "converged": stopped == "tolerance",
        "stopped_by": stopped,
    }
    return Attribution(values, "logit", facts, complete=stopped != "budget_ms")


def _points(question: Question, inputs: Tensor, kind: Any) -> Points:
    return Points(kind, inputs, question.coefficients.expand(len(inputs), -1))


def _evaluate_chains(
    question: Question, baseline: Tensor, chains: list[list[float]]
) -> Generator[Points, Evaluation, Evaluation]:
    """Slopes over the segments between neighbours in each chain of nodes; a chain's last row is void."""
    # Along the path neighbouring values may differ by less than float32 resolves (secant.py).
    start, end = baseline.double(), question.inputs.double()
    nodes = start.new_tensor([node for chain in chains for node in chain])
    ends = np.cumsum([len(chain) for chain in chains]) - 1
    coefficients = question.coefficients.repeat(len(nodes), 1)
    coefficients[ends] = 0
    inputs = torch.lerp(start, end, nodes[:, None, None, None])
    return (yield Points("secant", inputs, coefficients))


def _segments(chain: list[float], slopes: Tensor) -> list[Segment]:
    return [Segment(start, end, slope) for (start, end), slope in zip(pairwise(chain), slopes[:-1], strict=True)]


def _refine(
    question: Question, baseline: Tensor, segments: list[Segment], chains: list[list[float]]
) -> Generator[Points, Evaluation, list[Segment]]:
    """The segments with those that the chains halve replaced by their halves."""
    replaced = {node for chain in chains for node in chain[:-1]}
    kept = [segment for segment in segments if segment.start not in replaced]
    for group in _groups(chains):
        evaluation = yield from _evaluate_chains(question, baseline, group)
        for chain, slopes in zip(group, evaluation.slopes.split([len(chain) for chain in group]), strict=True):
            kept += _segments(chain, slopes)
    return sorted(kept, key=lambda segment: segment.start)


def _groups(chains: list[list[float]]) -> list[list[list[float]]]:
    """Chains that go through the network at once."""
    groups: list[list[list[float]]] = [[]]
    for chain in chains:
        if sum(map(len, groups[-1])) + len(chain) > MAX_BATCH:
            groups.append([])
        groups[-1].append(chain)
    return groups


def _mean_slope(segments: list[Segment]) -> Tensor:
    total = torch.zeros_like(segments[0].slope)
    for segment in segments:
        total += segment.length * segment.slope
    return total


def _segment_errors(segments: list[Segment], path: Tensor, values: Tensor) -> list[float]:
    """The estimated error of each segment's part of the map, relative to the map's norm."""
    norm = float(values.norm())
    if norm == 0:
        return [0.0] * len(segments)
    changes = [float(((b.slope - a.slope) * path).norm()) / norm for a, b in pairwise(segments)]
    around = [changes[0], *((a + b) / 2 for a, b in pairwise(changes)), changes[-1]]
    return [
        INDICATOR_FACTOR * (segment.length * change) ** INDICATOR_POWER
        for segment, change in zip(segments, around, strict=True)
    ]


def _worst(errors: list[float]) -> set[int]:
    """The fewest segments that hold the marked share of the squared error."""
    total = sum(error**2 for error in errors)
    marked: set[int] = set()
    held = 0.0
    for index in sorted(range(len(errors)), key=lambda item: -errors[item]):
        if held >= MARKED_SHARE * total:
            break
        marked.add(index)
        held += errors[index] ** 2
    return marked


def _halved(segments: list[Segment], marked: set[int]) -> list[list[float]]:
    """Chains of nodes over the halves of the marked segments; neighbours share a chain."""
    chains: list[list[float]] = []
    for index in sorted(marked):
        segment = segments[index]
        if chains and chains[-1][-1] == segment.start and len(chains[-1]) + 2 <= MAX_BATCH:
            chains[-1] += [segment.middle, segment.end]
        else:
            chains.append([segment.start, segment.middle, segment.end])
    return chains


def _residual(values: Tensor, change: Tensor) -> float:
    """The gap between the map's sum and the change of the score, relative to that change."""
    gap = (values.double().sum() - change.double().sum()).abs()
    return float(gap / change.double().sum().abs().clamp(min=SMALLEST_CHANGE))
