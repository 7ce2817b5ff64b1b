import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from handler.image import ImageLimits
from handler.model import Model
from handler.request import RawRequest
from handler.service import Service
from handler.tissue import CODES
from tests.conftest import Pixels
from tests.handler.test_image import Encode


@pytest.fixture(scope="module")
def pngs(tiles: Pixels, encode: Encode) -> list[bytes]:
    return [encode(tile) for tile in tiles]


def answer(service: Service, fields: dict[str, Any], explain: bool = False) -> dict[str, Any]:
    (response,) = service.respond([RawRequest(fields, explain)])
    assert response.status == 200
    body: dict[str, Any] = json.loads(response.body)
    return body


def raw_map(explanation: dict[str, Any]) -> np.ndarray[Any, Any]:
    attribution = explanation["attribution"]
    return np.frombuffer(base64.b64decode(attribution["data"]), "<f4").reshape(attribution["shape"])


def test_a_prediction_is_consistent(service: Service, pngs: list[bytes]) -> None:
    body = answer(service, {"body": pngs[0]})
    assert set(body) == {"model", "prediction", "probabilities", "logits"}
    assert list(body["probabilities"]) == list(CODES)
    assert sum(body["probabilities"].values()) == pytest.approx(1)
    expected = torch.tensor(body["logits"], dtype=torch.float64).softmax(dim=0)
    assert np.allclose(list(body["probabilities"].values()), expected)
    prediction = body["prediction"]
    assert prediction["code"] == max(body["probabilities"], key=body["probabilities"].get)
    assert prediction["code"] == CODES[prediction["class_id"]]
    assert prediction["probability"] == body["probabilities"][prediction["code"]]
    assert prediction["calibrated"] is False


def test_no_request_is_no_answer(service: Service) -> None:
    assert service.respond([]) == []


def test_each_of_a_mixed_batch_gets_what_it_gets_alone(service: Service, pngs: list[bytes]) -> None:
    steps = {"n_steps": b"4", "return": b"raw"}
    requests = [
        RawRequest({"body": pngs[0]}),
        RawRequest({"body": pngs[1], "return": b"raw"}, explain=True),
        RawRequest({"body": pngs[2], "method": b"saliency", "target": b"STR", "return": b"raw"}, explain=True),
        RawRequest({"body": b"garbage"}, explain=True),
        RawRequest({"body": pngs[3], "explain": b"gradcam,integrated_gradients", "target": b"2", **steps}),
        RawRequest({"body": pngs[4], "method": b"integrated_gradients", "baseline": b"white", **steps}, explain=True),
        RawRequest({"body": pngs[5], "target": b"9"}, explain=True),
        RawRequest({"body": pngs[6], "method": b"gradcam", "target": b"TUM", "return": b"raw"}, explain=True),
    ]
    together = service.respond(requests)
    assert [response.status for response in together] == [200, 200, 200, 415, 200, 200, 400, 200]
    for request, response in zip(requests, together, strict=True):
        (alone,) = service.respond([request])
        found, expected = json.loads(response.body), json.loads(alone.body)
        assert found.keys() == expected.keys()
        if response.status != 200:
            assert found == expected
            continue
        assert np.allclose(found["logits"], expected["logits"], atol=1e-4)
        assert found["prediction"]["code"] == expected["prediction"]["code"]
        for one, other in zip(found.get("explanations", []), expected.get("explanations", []), strict=True):
            assert (one["method"], one["target"]) == (other["method"], other["target"])
            assert np.abs(raw_map(one) - raw_map(other)).max() < 1e-4 * np.abs(raw_map(other)).max()


def test_the_default_target_is_each_tiles_own_class(service: Service, pngs: list[bytes]) -> None:
    responses = service.respond([RawRequest({"body": png}, explain=True) for png in pngs])
    for response in responses:
        body = json.loads(response.body)
        assert body["explanations"][0]["target"]["class_id"] == body["prediction"]["class_id"]


def test_a_saturated_model_fails_alone_and_by_name(model: Model, pngs: list[bytes]) -> None:
    """Weights that give infinite logits: a fault of ours, reported as such, never NaN in JSON."""
    broken = Service(model, torch.device("cpu"), ImageLimits())
    weight = model.network.fc.weight.data.clone()
    try:
        model.network.fc.weight.data.fill_(float("inf"))
        (response,) = broken.respond([RawRequest({"body": pngs[0]})])
    finally:
        model.network.fc.weight.data.copy_(weight)
    assert response.status == 500
    assert json.loads(response.body)["error"]["code"] == "internal_error"


def test_the_identity_is_the_models(model: Model, service: Service, pngs: list[bytes]) -> None:
    assert answer(service, {"body": pngs[0]})["model"] == model.identity()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_a_gpu_gives_the_cpus_answers(model: Model, service: Service, pngs: list[bytes]) -> None:
    device = torch.device("cuda:0")
    on_gpu = Service(replace(model, network=model.network.to(device)), device, ImageLimits())
    requests = [RawRequest({"body": png}) for png in pngs]
    found = [json.loads(response.body)["logits"] for response in on_gpu.respond(requests)]
    model.network.cpu()
    expected = [json.loads(response.body)["logits"] for response in service.respond(requests)]
    assert np.allclose(found, expected, atol=1e-3)
