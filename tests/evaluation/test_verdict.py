from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.verdict import (
    CANDIDATES,
    choose_threshold,
    costs,
    decide,
    is_tumour,
    markdown,
    predict,
    reliability_bins,
    tumour_shares,
)
from handler.classes import CODES
from handler.classifier import Classifier
from handler.model.calibration import CONFIDENCE, load_confidence, save_confidence
from handler.model.checkpoint import load_model
from training.checkpoint import SHIPPED
from training.synthetic import generate


def test_stroma_and_tumour_epithelium_are_tumour_related() -> None:
    assert np.flatnonzero(is_tumour(np.arange(9))).tolist() == [CODES.index("STR"), CODES.index("TUM")]


def test_every_tile_is_a_hit_a_miss_or_flagged_for_nothing() -> None:
    flagged = np.array([True, True, False, False, True])
    tumour = np.array([True, False, True, False, False])
    found = costs(flagged, tumour)
    assert (found.tumour_tiles, found.missed, found.other_tiles, found.flagged) == (2, 1, 3, 2)
    assert found.total == 12


def test_no_candidate_costs_less_than_the_chosen_threshold() -> None:
    rng = np.random.default_rng(0)
    tumour = rng.random(4000) < 0.25
    shares = np.where(tumour, rng.beta(3, 2, 4000), rng.beta(1, 6, 4000))
    chosen = choose_threshold(shares, tumour)
    least = costs(shares >= chosen, tumour).total
    assert all(costs(shares >= candidate, tumour).total >= least for candidate in CANDIDATES)


def test_with_calibrated_shares_the_threshold_is_the_ratio_of_the_costs() -> None:
    """Flagging pays from p on if 10 p = 1 - p: the rule of Bayes for these costs."""
    rng = np.random.default_rng(1)
    shares = rng.random(200_000)
    assert choose_threshold(shares, rng.random(200_000) < shares) == pytest.approx(1 / 11, abs=0.02)


def test_bins_count_every_tile_once() -> None:
    rng = np.random.default_rng(2)
    confidences = np.append(rng.uniform(0.2, 1, 500), [0.5, 0.99, 1.0])
    right = rng.random(503) < confidences
    bins = reliability_bins(confidences, right)
    expected, _ = np.histogram(confidences, [bins[0].low, *(item.high for item in bins)])
    assert [item.tiles for item in bins] == expected.tolist()
    assert sum(item.right for item in bins) == right.sum()


def test_threshold_and_bins_reach_the_calibration_and_the_report(classifier: Classifier, tmp_path: Path) -> None:
    assert classifier.model.confidence is not None
    tiles = generate(36, seed=5)
    predictions = predict(classifier, tiles)
    validation = tumour_shares(predictions), is_tumour(tiles.labels)
    plain = replace(classifier.model.confidence, tumour_threshold=None, reliability=())
    decided, report = decide(plain, validation, predictions, tiles.labels)
    save_confidence(decided, classifier.model.digest, tmp_path / CONFIDENCE)
    found = load_confidence(tmp_path / CONFIDENCE, classifier.model.digest)
    assert found is not None
    assert found.tumour_threshold == report["threshold"] == choose_threshold(*validation)
    assert sum(item.tiles for item in found.reliability) == len(tiles)
    assert sum(entry["tiles"] for entry in report["states"].values()) == len(tiles)
    assert sum(report["missed_by_state"].values()) == report["test"]["missed"]
    assert f"at least {report['threshold']:g}" in markdown(report)


def test_the_shipped_calibration_has_a_threshold_and_counted_test_tiles() -> None:
    found = load_model(SHIPPED).confidence
    assert found is not None
    assert found.tumour_threshold is not None
    assert 0 < found.tumour_threshold < 1
    assert sum(item.tiles for item in found.reliability) == 7180
