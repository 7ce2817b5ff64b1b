"""The path of adaptive Integrated Gradients: a line cut into segments, each with the score's mean gradient over it."""

import math
from collections.abc import Generator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from handler.explain.batching import MAX_BATCH
from handler.explain.types import Evaluation, EvaluationRequest, Sample

# Nodes are integers from 0, the baseline, to the last first node, the tile, so that middles are exact.
FIRST_SEGMENTS, FIRST_LENGTH = 15, 2**30
FIRST_NODES = [FIRST_LENGTH * index for index in range(FIRST_SEGMENTS + 1)]
# The estimate of a segment's error from the change of the gradient across it. On the shipped model it lies between 1
# and 2 times the true error (docs/explanations.md).
ERROR_POWER, ERROR_FACTOR = 1.25, 0.65
# Doerfler's marking (doi 10.1137/0733054): the worst segments with this share of the squared error are halved.
MARKED_SHARE = 0.5

# Consecutive nodes, evaluated in one batch: a chain of n nodes gives n - 1 segments.
Chain = list[int]


@dataclass(frozen=True)
class Segment:
    """The part of a path between two nodes, and the score's mean gradient over it, `[3, I, I]`."""

    start: int
    end: int
    gradient: Tensor

    @property
    def length(self) -> float:
        """As a share of the path."""
        return (self.end - self.start) / FIRST_NODES[-1]

    @property
    def middle(self) -> int:
        return (self.start + self.end) // 2


class SegmentedPath:
    """The straight path from a baseline `[1, 3, I, I]` to a sample's inputs, and the map by its segments so far.

    `segments` are in the path's order, `values` `[3, I, I]` is the map, `error` its estimated error relative to its
    norm, `evaluations` the gradients taken, `start_score` the score at the baseline.
    """

    segments: list[Segment]
    values: Tensor
    error: float
    start_score: Tensor

    def __init__(self, sample: Sample, baseline: Tensor) -> None:
        self.evaluations = 0
        self._path = (sample.inputs - baseline)[0]
        self._coefficients = sample.coefficients
        # Along the path neighbouring values may differ by less than float32 resolves (secant.py).
        self._start, self._end = baseline.double(), sample.inputs.double()

    def evaluate_first(self) -> Generator[EvaluationRequest, Evaluation, None]:
        """Evaluate the first, equal segments."""
        evaluation = yield self._request([FIRST_NODES])
        self.start_score = evaluation.scores[0]
        self._update(_segments(FIRST_NODES, evaluation.gradients), len(FIRST_NODES))

    def evaluate(self, chains: list[Chain]) -> Generator[EvaluationRequest, Evaluation, None]:
        """Replace segments by those between the nodes of chains. An interrupted evaluation changes nothing."""
        segments = {segment.start: segment for segment in self.segments}
        for group in _groups(chains):
            sizes = [len(chain) for chain in group]
            evaluation = yield self._request(group)
            for chain, gradients in zip(group, evaluation.gradients.split(sizes), strict=True):
                segments |= {segment.start: segment for segment in _segments(chain, gradients)}
        self._update([segments[start] for start in sorted(segments)], sum(map(len, chains)))

    def halve_worst(self) -> list[Chain]:
        """Chains over the halves of the worst segments, in which neighbours share a chain; none if all are exact."""
        chains: list[Chain] = []
        for index in _worst(self._errors):
            segment = self.segments[index]
            halves = [segment.start, segment.middle, segment.end]
            if chains and chains[-1][-1] == segment.start and len(chains[-1]) + 2 <= MAX_BATCH:
                chains[-1] += halves[1:]
            else:
                chains.append(halves)
        return chains

    def _request(self, chains: list[Chain]) -> EvaluationRequest:
        """Inputs at all nodes. The last row of a chain starts no segment, so its coefficients are 0."""
        nodes = torch.cat([torch.tensor(chain) for chain in chains]).to(self._start) / FIRST_NODES[-1]
        coefficients = self._coefficients.repeat(len(nodes), 1)
        coefficients[np.cumsum([len(chain) for chain in chains]) - 1] = 0
        inputs = torch.lerp(self._start, self._end, nodes[:, None, None, None])
        return EvaluationRequest("secant", inputs, coefficients)

    def _update(self, segments: list[Segment], evaluations: int) -> None:
        self.segments = segments
        self.evaluations += evaluations
        mean = torch.zeros_like(self._path)
        for segment in segments:
            mean += segment.length * segment.gradient
        self.values = self._path * mean
        self._errors = self._estimate_errors()
        self.error = math.sqrt(sum(error**2 for error in self._errors))

    def _estimate_errors(self) -> list[float]:
        """The estimated error of each segment's part of the map, relative to the map's norm."""
        norm = float(self.values.norm())
        if norm == 0:
            return [0.0] * len(self.segments)
        changes = [float(((b.gradient - a.gradient) * self._path).norm()) / norm for a, b in pairwise(self.segments)]
        around = [changes[0], *((a + b) / 2 for a, b in pairwise(changes)), changes[-1]]
        return [
            ERROR_FACTOR * (segment.length * change) ** ERROR_POWER
            for segment, change in zip(self.segments, around, strict=True)
        ]


def _segments(chain: Chain, gradients: Tensor) -> list[Segment]:
    return [
        Segment(start, end, gradient) for (start, end), gradient in zip(pairwise(chain), gradients[:-1], strict=True)
    ]


def _groups(chains: list[Chain]) -> list[list[Chain]]:
    """Chains that go through the network in one batch."""
    groups: list[list[Chain]] = [[]]
    for chain in chains:
        if sum(map(len, groups[-1])) + len(chain) > MAX_BATCH:
            groups.append([])
        groups[-1].append(chain)
    return groups


def _worst(errors: list[float]) -> list[int]:
    """The fewest segments that hold the marked share of the squared error, in the path's order."""
    squares = np.square(errors)
    if not squares.any():
        return []
    order = np.argsort(-squares, kind="stable")
    held = np.cumsum(squares[order])
    count = int(np.searchsorted(held, MARKED_SHARE * squares.sum())) + 1
    return sorted(order[:count].tolist())
