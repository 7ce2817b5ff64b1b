"""Calibration from tiles to the file beside the weights."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from evaluation import calibrate
from evaluation.calibrate import fit, judge, judge_sets, markdown, plot, set_limits
from evaluation.outputs import NO_CLASS, Outputs, join, run_foreign, spread
from evaluation.reliability import apply_temperature
from evaluation.scores import share_with_interval
from handler.model.calibration import CONFIDENCE, Confidence, load_confidence, save_confidence
from handler.model.checkpoint import Model, load_model
from tests.conftest import Pixels
from training.checkpoint import SHIPPED
from training.data import PathMNIST, Split
from training.synthetic import generate

TILES = 18


@pytest.fixture(scope="module")
def data() -> PathMNIST:
    splits = {name: generate(TILES, seed=seed) for seed, name in enumerate(("train", "val", "test"))}
    return PathMNIST(**splits, digest="")


def test_a_calibration_is_fitted_reported_and_loaded(model: Model, data: PathMNIST, tmp_path: Path) -> None:
    fitted = fit(model, data.train, data.val)
    confidence, report = fitted.confidence, judge(model, fitted, data.test)
    assert 0 <= confidence.thresholds["0.95"] <= confidence.thresholds["0.9"] <= 1
    assert confidence.class_means.shape == (9, 512)
    assert confidence.calibrated_on.startswith(f"{TILES} validation tiles as they are and ")
    assert report["test_tiles"] == sum(row["tiles"] for row in report["reliability"]) == TILES
    json.dumps(report, allow_nan=False)
    assert report["calibrated_on"] in markdown(report)
    plot(report, tmp_path / "reliability.svg")
    assert (tmp_path / "reliability.svg").stat().st_size > 1000
    for path in SHIPPED.iterdir():
        shutil.copy(path, tmp_path)
    save_confidence(confidence, model.digest, tmp_path / CONFIDENCE)
    found = load_model(tmp_path).confidence
    assert found is not None
    assert found.temperature == confidence.temperature


def test_test_tiles_calibrate_nothing(data: PathMNIST, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command writes the same calibration beside the weights, whatever the test tiles are."""

    def calibration(test: Split) -> Confidence:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(SHIPPED, folder)
        changed = PathMNIST(data.train, data.val, test, "")
        monkeypatch.setattr(calibrate, "load_or_exit", lambda source: changed)
        command = ["calibrate", "--data", "tiles.npz", "--checkpoint", str(folder), "--output", str(folder / "report")]
        monkeypatch.setattr(sys, "argv", command)
        calibrate.main()
        found = load_model(folder).confidence
        assert found is not None
        return found

    one, other = map(calibration, (data.test, Split(255 - data.test.images, data.test.labels)))
    for name, value in vars(one).items():
        assert np.array_equal(np.asarray(value), np.asarray(vars(other)[name])), name


def test_sets_keep_their_promise_on_tiles_like_those_of_the_calibration() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(8000, 9)) * 3
    labels = np.array([rng.choice(9, p=row) for row in apply_temperature(logits, 1.0)])
    half, other = (
        Outputs(np.zeros((4000, 1)), logits[part], labels[part]) for part in (slice(4000), slice(4000, None))
    )
    limits = set_limits(apply_temperature(half.logits, 1.0), half)
    for promise, sets in judge_sets(limits, apply_temperature(other.logits, 1.0), other).items():
        found = sets["LAC"]
        assert float(promise) - 0.02 < found["share"] < float(promise) + 0.02
        assert found["low"] < found["share"] < found["high"]


def test_an_interval_of_a_share_is_wilsons() -> None:
    hits = np.arange(50) < 43
    z = norm.ppf(0.975)
    centre = (43 + z**2 / 2) / (50 + z**2)
    half = z / (50 + z**2) * np.sqrt(43 * 7 / 50 + z**2 / 4)
    found = share_with_interval(hits)
    assert (found["low"], found["high"]) == pytest.approx((centre - half, centre + half))


def test_no_answer_to_an_image_without_a_class_is_right(model: Model, tiles: Pixels) -> None:
    outputs = run_foreign(model, tiles[:3])
    assert outputs.wrong.all()
    assert (join([outputs, outputs]).labels == [NO_CLASS] * 6).all()


def test_a_spread_keeps_images_and_labels_together() -> None:
    split = generate(36, seed=0)
    some = spread(split, 5)
    for image, label in zip(some.images, some.labels, strict=True):
        rows = [row for row in range(36) if np.array_equal(split.images[row], image)]
        assert label in split.labels[rows]
    assert np.array_equal(spread(split, 100).images, split.images)


def test_the_shipped_calibration_is_the_shipped_weights(model: Model) -> None:
    assert load_confidence(SHIPPED / CONFIDENCE, model.digest) is not None
