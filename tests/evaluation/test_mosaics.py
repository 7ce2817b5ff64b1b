"""Maps that are known to be right or wrong, against Quantus, and the measures on the shipped network."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.mosaics import (
    Mosaic,
    attributions,
    contrast,
    control,
    evaluate,
    localise,
    make_mosaics,
    markdown,
    mass_share,
    measured,
    pointing,
    quarters,
)
from handler.classifier import Classifier
from handler.model.preprocess import network_input
from training.data import as_tiles
from training.synthetic import generate

quantus = pytest.importorskip("quantus", reason="make .venv/alone.stamp installs Quantus")


@pytest.fixture(scope="module")
def mosaics(classifier: Classifier) -> list[Mosaic]:
    return make_mosaics(generate(36, seed=3), classifier.model.preprocessing, 9)


def test_a_mosaic_shows_four_classes_and_each_is_explained_equally_often(mosaics: list[Mosaic]) -> None:
    for mosaic in mosaics:
        assert len(set(mosaic.classes)) == 4
        assert mosaic.target != mosaic.contrast
    assert sorted(mosaic.classes[mosaic.target] for mosaic in mosaics) == list(range(9))


def test_a_quarter_is_the_tile_at_half_the_side(classifier: Classifier) -> None:
    preprocessing = classifier.model.preprocessing
    split = generate(9, seed=0)
    (mosaic,) = make_mosaics(split, preprocessing, 1)
    half = preprocessing.input_size // 2
    tile = as_tiles(split)[split.labels == mosaic.classes[1]]
    expected = torch.nn.functional.interpolate(tile, (half, half), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    assert torch.allclose(mosaic.inputs[:, :half, half:] * std + mean, expected[0], atol=1e-5)
    assert network_input(tile, preprocessing).shape[1:] == mosaic.inputs.shape


@pytest.mark.parametrize("quarter", range(4))
def test_both_measures_are_those_of_quantus(quarter: int) -> None:
    random = np.random.default_rng(quarter)
    for _ in range(10):
        strength = random.random((7, 7), dtype=np.float32)
        parts = quarters(strength, 224)
        upper, lower = (np.concatenate(list(parts[row : row + 2]), axis=1) for row in (0, 2))
        whole = np.concatenate([upper, lower])[None, None]
        mask = np.zeros((1, 1, 224, 224), dtype=np.float32)
        top, left = 112 * (quarter // 2), 112 * (quarter % 2)
        mask[..., top : top + 112, left : left + 112] = 1
        arguments = {
            "model": torch.nn.Identity(),
            "x_batch": np.zeros((1, 1, 224, 224), dtype=np.float32),
            "y_batch": np.zeros(1, dtype=int),
            "a_batch": whole,
            "s_batch": mask,
            "device": "cpu",
        }
        options = {"abs": False, "normalise": False, "disable_warnings": True}
        assert pointing(parts, quarter) == float(quantus.PointingGame(**options)(**arguments)[0])
        share = quantus.RelevanceMassAccuracy(**options)(**arguments)[0]
        assert mass_share(parts, quarter) == pytest.approx(share, abs=1e-5)


def test_an_empty_map_is_worth_a_guess() -> None:
    parts = quarters(np.zeros((7, 7), dtype=np.float32), 224)
    assert [pointing(parts, quarter) for quarter in range(4)] == [0.25] * 4
    assert [mass_share(parts, quarter) for quarter in range(4)] == [0.25] * 4


def test_a_map_of_the_right_tile_scores_one_and_of_another_zero(mosaics: list[Mosaic]) -> None:
    def perfect(quarter: int) -> np.ndarray:
        strength = np.zeros((14, 14), dtype=np.float32)
        strength[7 * (quarter // 2) + 1 : 7 * (quarter // 2) + 6, 7 * (quarter % 2) + 1 : 7 * (quarter % 2) + 6] = 1
        return strength

    right = localise([perfect(mosaic.target) for mosaic in mosaics], mosaics)
    wrong = localise([perfect(3 - mosaic.target) for mosaic in mosaics], mosaics)
    assert (right["pointing"]["mean"], right["share"]["mean"]) == (1, 1)
    assert (wrong["pointing"]["mean"], wrong["share"]["mean"]) == (0, 0)
    signed = [perfect(mosaic.target) - perfect(mosaic.contrast) for mosaic in mosaics]
    assert {name: entry["mean"] for name, entry in contrast(signed, mosaics).items()} == {"for": 1, "against": 1}


def test_controls_find_the_tile_by_chance(classifier: Classifier) -> None:
    mosaics = make_mosaics(generate(90, seed=4), classifier.model.preprocessing, 360)
    shares = localise([control("random map", mosaic, number) for number, mosaic in enumerate(mosaics)], mosaics)
    assert abs(shares["share"]["mean"] - 0.25) < 0.01
    assert abs(shares["pointing"]["mean"] - 0.25) < 0.07


def test_a_contrast_explains_the_difference_of_two_classes(classifier: Classifier, mosaics: list[Mosaic]) -> None:
    few = mosaics[:2]
    contrasted = list(attributions(classifier, "gradcam", few, contrasted=True))
    targets = attributions(classifier, "gradcam", few, contrasted=False)
    swapped = [Mosaic(mosaic.inputs, mosaic.classes, mosaic.contrast, mosaic.target) for mosaic in few]
    others = attributions(classifier, "gradcam", swapped, contrasted=False)
    for difference, one, other in zip(contrasted, targets, others, strict=True):
        assert np.allclose(difference, one - other, atol=1e-5)


def test_a_report_continues_where_it_ended(classifier: Classifier, mosaics: list[Mosaic], tmp_path: Path) -> None:
    methods = {name: evaluate(classifier, name, mosaics[:2]) for name in ("random map", "gradcam", "saliency")}
    assert set(methods["gradcam"]) == {"pointing", "share", "contrast"}
    report = {"model": "a", "mosaics": 2, "methods": methods}
    assert markdown(report).count("\n| ") == 4
    (tmp_path / "mosaics.json").write_text(json.dumps(report))
    assert measured(tmp_path / "mosaics.json", {"model": "a", "mosaics": 2}) == methods
    assert measured(tmp_path / "mosaics.json", {"model": "b", "mosaics": 2}) == {}
    assert measured(tmp_path / "missing.json", {}) == {}
