"""Prediction sets with a promised coverage, by split conformal prediction (Angelopoulos and Bates, arXiv 2107.07511).

The promise holds for tiles like those of the calibration. Tiles of another site differ from them.
"""

import math

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float64]
Labels = NDArray[np.int64]
Sets = NDArray[np.bool_]


def lac_scores(probabilities: Probabilities) -> Probabilities:
    """Nonconformity of every class: one minus its probability (Sadinle et al., arXiv 1609.00451)."""
    return 1 - probabilities


def aps_scores(probabilities: Probabilities) -> Probabilities:
    """Nonconformity of every class: the sum of all probabilities down to its own (Romano et al., arXiv 2006.02544).

    Not randomised: the same tile always has the same set.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")
    sums = np.cumsum(np.take_along_axis(probabilities, order, axis=1), axis=1)
    scores = np.empty_like(probabilities)
    np.put_along_axis(scores, order, sums, axis=1)
    return scores


def threshold(scores: Probabilities, labels: Labels, coverage: float) -> float:
    """The score under which classes belong to the set: the `ceil((n + 1) coverage)`-th smallest of the true classes'
    scores; infinite if n tiles are too few for the promise."""
    own = np.sort(scores[np.arange(len(labels)), labels])
    rank = math.ceil((len(labels) + 1) * coverage)
    return float("inf") if rank > len(labels) else float(own[rank - 1])


def prediction_sets(scores: Probabilities, limit: float) -> Sets:
    """Classes under the limit, and always the best one: `[N, 9]`."""
    sets = scores <= limit
    sets[np.arange(len(scores)), scores.argmin(axis=1)] = True
    return sets


def holds_truth(sets: Sets, labels: Labels) -> NDArray[np.bool_]:
    """Whether each tile's set contains its class: `[N]`."""
    held: NDArray[np.bool_] = sets[np.arange(len(labels)), labels]
    return held


def mean_size(sets: Sets) -> float:
    """Classes in a set, on average."""
    return float(sets.sum(axis=1).mean())
