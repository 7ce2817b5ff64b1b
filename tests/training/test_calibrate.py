"""Calibration from tiles to the file beside the weights."""

import json
import shutil
from pathlib import Path

import pytest

from handler.confidence import CONFIDENCE, load_confidence, save_confidence
from handler.model import Model, load_model
from training.calibrate import calibrate, halves, markdown, plot, shortfall
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
