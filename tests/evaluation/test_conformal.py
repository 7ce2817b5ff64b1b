"""Promises kept on exchangeable tiles, and how far they are missed on another site's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin

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


class PublishedClassifier(ClassifierMixin, BaseEstimator):
    """A fitted classifier for MAPIE whose inputs are the probabilities themselves."""

    classes_ = np.arange(9)
    is_fitted_ = True

    def predict_proba(self, inputs: Probabilities) -> Probabilities:
        return inputs

    def predict(self, inputs: Probabilities) -> Labels:
        return inputs.argmax(axis=1)

    def __sklearn_is_fitted__(self) -> bool:
        return True


class NoChance(np.random.RandomState):
    """Makes MAPIE's APS, which is randomised, the one that gives the same tile the same set."""

    def uniform(self, low: Any = 0, high: Any = 1, size: Any = None) -> Any:
        return np.zeros(size)


@pytest.mark.parametrize("coverage", [0.9, 0.95])
@pytest.mark.parametrize(("name", "scores"), [("lac", lac_scores), ("aps", aps_scores)])
def test_sets_are_those_of_mapie(
    name: str, scores: Callable[[Probabilities], Probabilities], coverage: float, test_tiles: Published
) -> None:
    probabilities, labels = test_tiles[0][:2000], test_tiles[1][:2000]
    # Softened, because MAPIE treats sums that differ by 1e-8 as equal.
    softened = probabilities**0.2
    (calibration, truth), (judged, _) = halves((softened / softened.sum(axis=1, keepdims=True), labels))
    mapie = SplitConformalClassifier(
        PublishedClassifier(), conformity_score=name, confidence_level=coverage, prefit=True, random_state=NoChance()
    )
    options = {"conformity_score_params": {"include_last_label": False}} if name == "aps" else {}
    _, expected = mapie.conformalize(calibration, truth).predict_set(judged, **options)
    # LAC's sets can be empty in MAPIE; ours hold the best class.
    expected[np.arange(len(judged)), judged.argmax(axis=1)] = True
    sets = prediction_sets(scores(judged), threshold(scores(calibration), truth, coverage))
    assert np.array_equal(sets, expected[:, :, 0])


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
