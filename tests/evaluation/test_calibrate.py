"""Calibration from tiles to the file beside the weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from evaluation.calibrate import Outputs, calibrate, halves, markdown, over_halves, plot, shortfall
from evaluation.reliability import apply_temperature
from handler.model.calibration import CONFIDENCE, load_confidence, save_confidence
from handler.model.checkpoint import Model, load_model
from training.checkpoint import SHIPPED
from training.data import PathMNIST
from training.synthetic import generate


def test_a_calibration_is_fitted_reported_and_loaded(model: Model, tmp_path: Path) -> None:
    splits = {name: generate(36, seed=seed) for seed, name in enumerate(("train", "val", "test"))}
    confidence, report = calibrate(model, PathMNIST(**splits, digest="generated"))
    assert set(report["sources"]) == {"the validation split", "half of the test split"}
    assert report["kept"] in report["sources"]
    kept = report["sources"][report["kept"]]
    assert shortfall(kept["sets"]) == min(shortfall(source["sets"]) for source in report["sources"].values())
    assert kept["temperature"] == pytest.approx(confidence.temperature, abs=1e-4)
    assert 0 <= confidence.thresholds["0.95"] <= confidence.thresholds["0.9"] <= 1
    assert confidence.class_means.shape == (9, 512)
    json.dumps(report, allow_nan=False)
    assert report["kept"] in markdown(report)
    plot(report, tmp_path / "reliability.svg")
    assert (tmp_path / "reliability.svg").stat().st_size > 1000
    for path in SHIPPED.iterdir():
        shutil.copy(path, tmp_path)
    save_confidence(confidence, model.digest, tmp_path / CONFIDENCE)
    found = load_model(tmp_path).confidence
    assert found is not None
    assert found.temperature == confidence.temperature


def test_the_halves_are_all_rows_once() -> None:
    first, second = halves(11)
    assert sorted([*first, *second]) == list(range(11))
    assert len(first) == 5


def test_the_shipped_calibration_is_the_shipped_weights(model: Model) -> None:
    assert load_confidence(SHIPPED / CONFIDENCE, model.digest) is not None


def test_over_random_halves_sets_keep_their_promise() -> None:
    """Both halves of one population: on average the promise holds, for one half only nearly."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 9)) * 3
    labels = np.array([rng.choice(9, p=row) for row in apply_temperature(logits, 1.0)])
    found = over_halves(Outputs(np.zeros((400, 1)), logits, labels))["coverage"]
    for promise, row in found.items():
        assert float(promise) - 0.005 < row["mean"] < float(promise) + 0.015
        assert row["low"] < row["mean"] < row["high"]
