from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from evaluation.reliability import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    reliability,
    risk_coverage,
)

RNG = np.random.default_rng(0)


def drawn(temperature: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose true class is drawn from their softmax at a temperature."""
    logits = RNG.normal(0, 3, (count, 9))
    probabilities = softmax(logits / temperature, axis=1)
    labels = (probabilities.cumsum(axis=1) > RNG.random((count, 1))).argmax(axis=1)
    return logits, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_true_temperature_is_found_and_calibrates(temperature: float) -> None:
    logits, labels = drawn(temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    assert expected_calibration_error(apply_temperature(logits, found), labels) < 0.02


def test_overconfidence_is_measured() -> None:
    logits, labels = drawn(3.0)
    assert expected_calibration_error(apply_temperature(logits, 1.0), labels) > 0.2


def test_temperature_changes_no_prediction() -> None:
    logits, _ = drawn(1.0, 100)
    assert (apply_temperature(logits, 5.0).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_bins_hold_every_tile_once_and_their_means() -> None:
    probabilities = np.array([[0.9, 0.1], [0.95, 0.05], [0.6, 0.4], [1.0, 0.0]])
    rows = reliability(probabilities, np.array([0, 1, 0, 0]), bins=2)
    assert rows == [{"tiles": 4, "share": 1.0, "confidence": pytest.approx(0.8625), "accuracy": 0.75}]
    rows = reliability(probabilities, np.array([0, 1, 0, 0]), bins=10)
    assert sum(row["share"] for row in rows) == 1
    assert [row["accuracy"] for row in rows] == [1.0, pytest.approx(2 / 3)]


def test_abstaining_from_the_unsure_lowers_the_error(shared: Path) -> None:
    table = np.loadtxt(shared / "resnet18_28_v1_scores" / "test.csv", delimiter=",", skiprows=1)
    coverage, risk = risk_coverage(table[:, 2:], table[:, 1].astype(int))
    assert coverage[-1] == 1
    assert risk[-1] == pytest.approx((table[:, 2:].argmax(axis=1) != table[:, 1]).mean())
    assert risk[len(risk) // 2] < risk[-1] / 2
