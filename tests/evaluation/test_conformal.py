"""Promises kept on exchangeable tiles, and how far they are missed on another site's."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.conformal import (
    Labels,
    Probabilities,
    aps_scores,
    holds_truth,
    lac_scores,
    mean_size,
    prediction_sets,
    threshold,
)

Published = tuple[Probabilities, Labels]


def read(path: Path) -> Published:
    table = np.loadtxt(path, delimiter=",", skiprows=1, encoding="utf-8")
    return table[:, 2:], table[:, 1].astype(int)


@pytest.fixture(scope="module")
def validation(shared: Path) -> Published:
    """A published ResNet-18's scores of all 10,004 validation tiles."""
    return read(shared / "resnet18_28_v1_scores" / "val.csv")


@pytest.fixture(scope="module")
def test_tiles(shared: Path) -> Published:
    """The same network's scores of all 7,180 test tiles, from another site."""
    return read(shared / "resnet18_28_v1_scores" / "test.csv")


def halves(published: Published) -> tuple[Published, Published]:
    probabilities, labels = published
    order = np.random.default_rng(0).permutation(len(labels))
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    return (probabilities[first], labels[first]), (probabilities[second], labels[second])


@pytest.mark.parametrize("coverage", [0.9, 0.95])
@pytest.mark.parametrize("which", ["validation", "test_tiles"])
def test_calibrated_on_the_same_site_sets_keep_their_promise(
    which: str, coverage: float, request: pytest.FixtureRequest
) -> None:
    calibration, judged = halves(request.getfixturevalue(which))
    sets = prediction_sets(lac_scores(judged[0]), threshold(lac_scores(calibration[0]), calibration[1], coverage))
    found = holds_truth(sets, judged[1]).mean()
    # A network right more often than promised has sets of one class that cover more.
    accuracy = (judged[0].argmax(axis=1) == judged[1]).mean()
    assert found == pytest.approx(max(coverage, accuracy), abs=0.02)


def test_calibrated_on_another_site_sets_break_their_promise(validation: Published, test_tiles: Published) -> None:
    sets = prediction_sets(lac_scores(test_tiles[0]), threshold(lac_scores(validation[0]), validation[1], 0.95))
    assert holds_truth(sets, test_tiles[1]).mean() < 0.93


def test_more_coverage_takes_larger_sets(test_tiles: Published) -> None:
    calibration, judged = halves(test_tiles)
    for scores in (lac_scores, aps_scores):
        sizes = [
            mean_size(prediction_sets(scores(judged[0]), threshold(scores(calibration[0]), calibration[1], coverage)))
            for coverage in (0.8, 0.9, 0.95, 0.99)
        ]
        assert sizes == sorted(sizes)


def test_the_threshold_is_the_definitions() -> None:
    scores = np.array([[0.1], [0.4], [0.2], [0.3]])
    labels = np.zeros(4, dtype=int)
    assert threshold(scores, labels, 0.5) == 0.3
    assert threshold(scores, labels, 0.8) == 0.4
    assert threshold(scores, labels, 0.9) == float("inf")


def test_aps_scores_sum_from_the_largest_down() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3]])
    assert np.allclose(aps_scores(probabilities), [[1.0, 0.5, 0.8]])


def test_no_set_is_empty() -> None:
    probabilities: NDArray[np.float64] = np.full((3, 9), 1 / 9)
    assert (prediction_sets(lac_scores(probabilities), -1.0).sum(axis=1) == 1).all()
