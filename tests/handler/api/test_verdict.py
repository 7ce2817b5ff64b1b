from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from handler.api.image import ImageLimits
from handler.api.service import Service
from handler.api.verdict import Verdict, verdict_of
from handler.classes import CODES
from handler.model.calibration import Confidence
from handler.model.checkpoint import Model
from handler.model.prediction import Prediction, ReliabilityBin
from tests.conftest import Pixels
from tests.support.answers import answer
from tests.support.explaining import classifier_of

Encode = Callable[..., bytes]

BINS = (ReliabilityBin(0.0, 0.5, 20, 11), ReliabilityBin(0.5, 0.9, 0, 0), ReliabilityBin(0.9, 1.0, 550, 542))


def confidence(**changes: Any) -> Confidence:
    values: dict[str, Any] = {
        "temperature": 1.0,
        "thresholds": {"0.9": 0.4, "0.95": 0.2},
        "ood_threshold": 700.0,
        "calibrated_on": "ten tiles",
        "class_means": torch.zeros(9, 512),
        "whitening": torch.eye(512),
        "tumour_threshold": 0.1,
        "reliability": BINS,
    }
    return Confidence(**{**values, **changes})


CALIBRATED = confidence()


def verdict(calibration: Confidence = CALIBRATED, ood_score: float = 1.0, **shares: float) -> Verdict:
    """The verdict on a tile with these probabilities by code, the rest spread evenly over the other classes."""
    rest = (1 - sum(shares.values())) / (len(CODES) - len(shares))
    probabilities = np.array([shares.get(code, rest) for code in CODES])
    sets = {name: calibration.prediction_set(probabilities.tolist(), name) for name in calibration.thresholds}
    limit = calibration.ood_threshold
    return verdict_of(Prediction(np.log(probabilities), probabilities, True, ood_score, limit, sets), calibration)


def test_a_single_likely_class_is_confident() -> None:
    found = verdict(MUS=0.95)
    assert (found.state, found.classes) == ("confident", ("MUS",))


def test_a_set_of_several_classes_is_uncertain_and_all_are_named() -> None:
    found = verdict(LYM=0.49, TUM=0.35)
    assert (found.state, found.classes) == ("uncertain", ("LYM", "TUM"))


def test_a_single_class_of_low_probability_is_uncertain_beside_the_next() -> None:
    found = verdict(confidence(thresholds={"0.95": 0.5}), LYM=0.6, DEB=0.3)
    assert (found.state, found.classes) == ("uncertain", ("LYM", "DEB"))


def test_a_tile_unlike_the_training_tiles_has_no_classes_and_no_risk() -> None:
    found = verdict(ood_score=701, MUS=0.99)
    assert (found.state, found.classes, found.tumour_related) == ("unreliable", (), None)
    assert found.risk_json() is None


@pytest.mark.parametrize("ood_score", [1.0, 701.0])
@pytest.mark.parametrize("shares", [{"LYM": 0.8, "TUM": 0.15}, {"MUS": 0.8, "STR": 0.06, "TUM": 0.06}, {"TUM": 0.9}])
def test_the_share_flags_a_tile_whatever_class_wins_and_in_every_state(
    shares: dict[str, float], ood_score: float
) -> None:
    found = verdict(confidence(), ood_score, **shares)
    assert found.tumour_share >= 0.1
    assert found.tumour_related is True


def test_below_the_threshold_the_risk_is_unknown_and_never_low() -> None:
    found = verdict(ADI=0.99)
    assert found.tumour_related is False
    risk = found.risk_json()
    assert risk is not None
    assert risk["level"] == "unknown"


def test_without_a_threshold_there_is_a_share_and_no_risk() -> None:
    found = verdict(confidence(tumour_threshold=None), TUM=0.9)
    assert found.tumour_share == pytest.approx(0.9, abs=0.02)
    assert (found.tumour_related, found.risk_json()) == (None, None)


def test_the_share_right_is_that_of_test_tiles_with_this_confidence() -> None:
    assert verdict(MUS=0.95).to_json()["share_right"] == 542 / 550
    assert verdict(MUS=0.4).to_json()["test_tiles"] == {"low": 0.0, "high": 0.5, "tiles": 20, "right": 11}
    # No test tile had such a confidence.
    assert verdict(MUS=0.7).to_json()["share_right"] is None
    assert verdict(confidence(reliability=()), MUS=0.95).to_json()["share_right"] is None


def test_certainty_belongs_to_the_last_bin() -> None:
    assert confidence().reliability_at(1.0) == BINS[-1]


def test_an_uncalibrated_model_is_never_confident() -> None:
    probabilities = np.full(9, 0.001)
    probabilities[5] = 0.992
    found = verdict_of(Prediction(np.log(probabilities), probabilities, False, None, None, {}), None)
    assert (found.state, found.classes, found.tumour_related) == ("uncertain", ("MUS",), None)


@pytest.mark.parametrize(("limit", "states"), [(1e9, {"uncertain", "confident"}), (1e-9, {"unreliable"})])
def test_answers_carry_the_verdict_that_agrees_with_their_other_figures(
    limit: float, states: set[str], model: Model, tiles: Pixels, encode: Encode
) -> None:
    assert model.confidence is not None
    calibrated = replace(model.confidence, ood_threshold=limit, tumour_threshold=0.1)
    service = Service(classifier_of(replace(model, confidence=calibrated)), ImageLimits())
    for tile in tiles:
        body = answer(service, {"body": encode(tile), "coverage": "0.95"})
        found, shares = body["verdict"], body["probabilities"]
        assert found["state"] in states
        assert found["tumour_share"] == pytest.approx(shares["TUM"] + shares["STR"])
        if found["state"] == "unreliable":
            assert body["prediction_set"] is body["risk"] is None
            assert found["classes"] == []
            continue
        assert body["risk"]["level"] == ("high" if found["tumour_share"] >= 0.1 else "unknown")
        assert found["classes"][: len(body["prediction_set"]["codes"])] == body["prediction_set"]["codes"]


def test_the_canonical_tile_is_returned_on_request(service: Service, tiles: Pixels, encode: Encode) -> None:
    body = answer(service, {"body": encode(tiles[0]), "include": "canonical"})
    assert body["canonical"]["size"] == 28
    picture = Image.open(BytesIO(b64decode(body["canonical"]["image"])))
    # A tile of 28 pixels is its own canonical tile.
    assert np.array_equal(np.asarray(picture), tiles[0])
