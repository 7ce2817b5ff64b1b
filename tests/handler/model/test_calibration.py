import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from handler.api.image import ImageLimits
from handler.api.request import RawRequest
from handler.api.service import Service
from handler.model.calibration import (
    CONFIDENCE,
    Confidence,
    ConfidenceError,
    load_confidence,
    save_confidence,
)
from handler.model.checkpoint import Model
from handler.model.prediction import ReliabilityBin
from tests.conftest import Pixels
from tests.support.answers import answer
from tests.support.explaining import classifier_of
from tests.support.images import Encode


def some(**changes: Any) -> Confidence:
    generator = torch.Generator().manual_seed(0)
    values: dict[str, Any] = {
        "temperature": 2.0,
        "thresholds": {"0.9": 0.2, "0.95": 0.05},
        "ood_threshold": 700.0,
        "calibrated_on": "ten tiles",
        "class_means": torch.randn(9, 512, generator=generator),
        "whitening": torch.linalg.cholesky(torch.eye(512) * 2),
    }
    return Confidence(**{**values, **changes})


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    saved = some(tumour_threshold=0.1, reliability=(ReliabilityBin(0.0, 0.9, 4, 3), ReliabilityBin(0.9, 1.0, 2, 2)))
    save_confidence(saved, "digest", tmp_path / CONFIDENCE)
    found = load_confidence(tmp_path / CONFIDENCE, "digest")
    assert found is not None
    for name in ("temperature", "thresholds", "ood_threshold", "calibrated_on", "tumour_threshold", "reliability"):
        assert getattr(found, name) == getattr(saved, name)
    assert torch.equal(found.class_means, some().class_means)
    assert load_confidence(tmp_path / "nothing here", "digest") is None


def test_the_file_of_a_calibration_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    for index in range(8):
        save_confidence(some(), "digest", tmp_path / str(index))
    assert len({(tmp_path / str(index)).read_bytes() for index in range(8)}) == 1


@pytest.mark.parametrize(
    ("confidence", "digest", "problem"),
    [(some(), "other", "belongs to weights"), (some(temperature=0.0), "digest", "temperature")],
)
def test_a_calibration_that_does_not_fit_is_refused(
    confidence: Confidence, digest: str, problem: str, tmp_path: Path
) -> None:
    save_confidence(confidence, "digest", tmp_path / CONFIDENCE)
    with pytest.raises(ConfidenceError, match=problem):
        load_confidence(tmp_path / CONFIDENCE, digest)


def test_a_file_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / CONFIDENCE
    tensors = {"class_means": torch.zeros(9, 512), "whitening": torch.zeros(512, 512)}
    for settings in ({}, {"confidence": "not json"}, {"confidence": json.dumps({"temperature": 1})}):
        save_file(tensors, path, metadata=settings)
        with pytest.raises(ConfidenceError, match="schema"):
            load_confidence(path, "digest")
    path.write_bytes(b"no safetensors")
    with pytest.raises(ConfidenceError, match="schema"):
        load_confidence(path, "digest")


def test_a_set_holds_the_classes_over_its_threshold_and_never_none() -> None:
    probabilities = [0.02, 0.5, 0.0, 0.3, 0.1, 0.08, 0.0, 0.0, 0.0]
    assert some().prediction_set(probabilities, "0.9") == [1, 3]
    assert some().prediction_set(probabilities, "0.95") == [1, 3, 4, 5]
    assert some(thresholds={"0.9": 0.99}).prediction_set(probabilities, "0.9") == [1]


def test_the_distance_is_mahalanobis() -> None:
    confidence = some()
    points = torch.randn(5, 512)
    precision = confidence.whitening @ confidence.whitening.T
    expected = [
        min(float((point - mean) @ precision @ (point - mean)) for mean in confidence.class_means) for point in points
    ]
    assert np.allclose(confidence.ood_scores(points), expected, rtol=1e-4)
    assert confidence.ood_scores(confidence.class_means).abs().max() < 1e-3


def service_with(model: Model, confidence: Confidence | None) -> Service:
    return Service(classifier_of(replace(model, confidence=confidence)), ImageLimits())


def test_an_answer_says_what_it_is_worth(model: Model, tiles: Pixels, encode: Encode) -> None:
    body = answer(service_with(model, some(ood_threshold=1e9)), {"body": encode(tiles[0]), "coverage": "0.95"})
    scaled = torch.tensor(body["logits"], dtype=torch.float64).div(2).softmax(dim=0)
    assert np.allclose(list(body["probabilities"].values()), scaled)
    assert body["prediction"]["calibrated"] is True
    assert body["confidence"] == body["prediction"]["probability"] == max(body["probabilities"].values())
    members = [code for code, value in body["probabilities"].items() if value >= 0.05]
    assert body["prediction_set"]["coverage"] == 0.95
    assert set(body["prediction_set"]["codes"]) == set(members) | {body["prediction"]["code"]}
    assert body["in_distribution"] is (body["ood_score"] <= 1e9)


def test_a_model_without_calibration_serves_and_says_so(model: Model, tiles: Pixels, encode: Encode) -> None:
    body = answer(service_with(model, None), {"body": encode(tiles[0])})
    assert body["prediction"]["calibrated"] is False
    for name in ("confidence", "prediction_set", "ood_score", "in_distribution"):
        assert body[name] is None
    plain = torch.tensor(body["logits"], dtype=torch.float64).softmax(dim=0)
    assert np.allclose(list(body["probabilities"].values()), plain)


@pytest.mark.parametrize(
    ("include", "keys"),
    [
        ("none", set()),
        ("risk", {"risk"}),
        ("verdict", {"verdict"}),
        ("canonical", {"canonical"}),
        ("ood,confidence", {"ood_score", "in_distribution", "confidence"}),
        ("prediction_set", {"prediction_set"}),
        ("fit,field", {"fit", "field"}),
    ],
)
def test_each_part_can_be_left_out(include: str, keys: set[str], model: Model, tiles: Pixels, encode: Encode) -> None:
    body = answer(service_with(model, some()), {"body": encode(tiles[0]), "include": include})
    assert set(body) - {"model", "prediction", "probabilities", "logits"} == keys


def test_the_shipped_model_knows_a_tile_from_noise(model: Model, encode: Encode, service: Service) -> None:
    assert model.confidence is not None
    noise = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    body = RawRequest({"body": encode(noise)})
    (response,) = service.respond([body])
    found = json.loads(response.body)
    assert found["in_distribution"] is False
    assert found["ood_score"] > model.confidence.ood_threshold
