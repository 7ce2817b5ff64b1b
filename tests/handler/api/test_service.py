import base64
import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handler.api.image import ImageLimits
from handler.api.request import RawRequest
from handler.api.service import Response, Service
from handler.classes import CODES
from handler.explain.cache import AttributionCache
from handler.explain.registry import METHODS
from handler.explain.types import Attribution, Method, Parameters, Plan, Points, Question
from handler.model.checkpoint import Model
from handler.model.engine import Engine
from tests.conftest import Pixels
from tests.handler.api.test_image import Encode
from training.data import PathMNIST


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


def test_a_prediction_is_consistent(service: Service, model: Model, pngs: list[bytes]) -> None:
    assert model.confidence is not None
    body = answer(service, {"body": pngs[0], "include": "none"})
    assert set(body) == {"model", "prediction", "probabilities", "logits"}
    assert list(body["probabilities"]) == list(CODES)
    assert sum(body["probabilities"].values()) == pytest.approx(1)
    scaled = torch.tensor(body["logits"], dtype=torch.float64) / model.confidence.temperature
    assert np.allclose(list(body["probabilities"].values()), scaled.softmax(dim=0))
    prediction = body["prediction"]
    assert prediction["code"] == max(body["probabilities"], key=body["probabilities"].get)
    assert prediction["code"] == CODES[prediction["class_id"]]
    assert prediction["probability"] == body["probabilities"][prediction["code"]]
    assert prediction["calibrated"] is True


def test_no_request_is_no_answer(service: Service) -> None:
    assert service.respond([]) == []


def test_each_of_a_mixed_batch_gets_what_it_gets_alone(service: Service, pngs: list[bytes]) -> None:
    steps = {"n_steps": b"4", "return": b"raw"}
    requests = [
        RawRequest({"body": pngs[0]}),
        RawRequest({"body": pngs[1], "return": b"raw"}, explain=True),
        RawRequest({"body": pngs[2], "method": b"saliency", "target": b"STR", "return": b"raw"}, explain=True),
        RawRequest({"body": b"garbage"}, explain=True),
        RawRequest({"body": pngs[3], "method": b"gradcam,integrated_gradients", "target": b"2", **steps}, explain=True),
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


def test_the_raw_map_is_exact_in_single_and_close_in_half_precision(service: Service, pngs: list[bytes]) -> None:
    fields = {"body": pngs[0], "method": "saliency", "return": "raw"}
    single = answer(service, fields, explain=True)["explanations"][0]["attribution"]
    half = answer(service, {**fields, "dtype": "float16"}, explain=True)["explanations"][0]["attribution"]
    values = np.frombuffer(base64.b64decode(single["data"]), "<f4").reshape(single["shape"])
    rough = np.frombuffer(base64.b64decode(half["data"]), "<f2").reshape(half["shape"]) * half["scale"]
    assert single["range"] == half["range"] == [float(values.min()), float(values.max())]
    assert single["scale"] == 1
    assert np.abs(rough - values).max() < 1e-3 * np.abs(values).max()
    assert len(half["data"]) < 0.51 * len(single["data"])


def was_cached(response: Response) -> bool:
    """Whether the first explanation came from the cache."""
    return bool(json.loads(response.body)["explanations"][0]["cached"])


@pytest.fixture
def caching(model: Model, tmp_path: Path) -> Iterator[Service]:
    cache = AttributionCache(tmp_path, 100_000_000)
    yield Service(Engine(model, torch.device("cpu")), ImageLimits(), cache)
    cache.close()


def test_a_repeated_question_is_answered_from_the_cache(caching: Service, pngs: list[bytes]) -> None:
    request = RawRequest({"body": pngs[0], "method": "saliency,gradcam", "return": "raw"}, explain=True)
    (first,), (second,) = caching.respond([request]), caching.respond([request])
    missed, hit = (json.loads(response.body)["explanations"] for response in (first, second))
    assert (missed[0].pop("cached"), hit[0].pop("cached")) == (False, True)
    assert missed == hit
    assert "cached" not in hit[1]


def test_rendering_is_no_part_of_the_question(caching: Service, pngs: list[bytes]) -> None:
    for options in ({}, {"colormap": "viridis", "size": "100", "sigma": "2", "return": "raw"}):
        request = RawRequest({"body": pngs[0], "method": "saliency", **options}, explain=True)
        (response,) = caching.respond([request])
    assert was_cached(response)


def test_another_target_model_or_pixel_is_another_question(
    caching: Service, model: Model, tiles: Pixels, encode: Encode, tmp_path: Path
) -> None:
    changed = tiles[0].copy()
    changed[0, 0, 0] ^= 1
    caching.respond([RawRequest({"body": encode(tiles[0]), "method": "saliency", "target": "1"}, explain=True)])
    others = [
        RawRequest({"body": encode(tiles[0]), "method": "saliency", "target": "2"}, explain=True),
        RawRequest({"body": encode(changed), "method": "saliency", "target": "1"}, explain=True),
    ]
    assert not any(was_cached(response) for response in caching.respond(others))
    other = Engine(replace(model, digest="another"), torch.device("cpu"))
    updated = Service(other, ImageLimits(), AttributionCache(tmp_path, 100_000_000))
    request = RawRequest({"body": encode(tiles[0]), "method": "saliency", "target": "1"}, explain=True)
    assert not was_cached(updated.respond([request])[0])
    assert was_cached(caching.respond([request])[0])


def test_a_map_cut_short_by_its_budget_is_not_kept(caching: Service, pngs: list[bytes]) -> None:
    fields = {"body": pngs[0], "method": "integrated_gradients", "tolerance": "0.001"}
    # The first tells the service what an evaluation costs here.
    answer(caching, {"body": pngs[1], "method": "integrated_gradients"}, explain=True)
    cut = answer(caching, {**fields, "budget_ms": "2500"}, explain=True)["explanations"][0]
    if "skipped" in cut:
        assert cut["skipped"]["code"] == "budget_exceeded"
    else:
        assert (cut["stopped_by"], cut["converged"]) == ("budget_ms", False)
    whole = answer(caching, {**fields, "max_evaluations": "16"}, explain=True)["explanations"][0]
    assert whole["cached"] is False


def test_what_does_not_fit_the_budget_is_named_and_the_rest_answered(service: Service, pngs: list[bytes]) -> None:
    answer(service, {"body": pngs[1], "method": "occlusion", "window": "112"}, explain=True)
    body = answer(service, {"body": pngs[0], "method": "gradcam,occlusion", "window": "16", "budget_ms": "300"}, True)
    gradcam, occlusion = body["explanations"]
    assert "heatmap" in gradcam
    assert occlusion["skipped"]["code"] == "budget_exceeded"
    assert "heatmap" not in occlusion
    assert body["prediction"]["code"] in CODES


def test_equal_questions_in_a_batch_are_computed_once(caching: Service, pngs: list[bytes]) -> None:
    request = RawRequest({"body": pngs[3], "method": "saliency", "return": "raw"}, explain=True)
    responses = caching.respond([request] * 3)
    assert not any(was_cached(response) for response in responses)
    maps = [raw_map(json.loads(response.body)["explanations"][0]) for response in responses]
    assert np.array_equal(maps[0], maps[1])
    assert np.array_equal(maps[0], maps[2])


@pytest.mark.parametrize("name", sorted(METHODS))
def test_an_answer_is_under_100_kb(name: str, service: Service, real_data: PathMNIST, encode: Encode) -> None:
    cheap = {"n_steps": "8"} if name == "integrated_gradients" else {"window": "112"} if name == "occlusion" else {}
    fields = {"n_samples": "4"} if name == "smoothgrad" else cheap
    for image in real_data.test.images[[0, 100, 200]]:
        request = RawRequest({"body": encode(image), "method": name, **fields}, explain=True)
        (response,) = service.respond([request])
        assert response.status == 200
        assert len(response.body) < 100_000


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_a_constant_image_has_defined_answers(shade: int, service: Service, encode: Encode) -> None:
    image = encode(np.full((28, 28, 3), shade, dtype=np.uint8))
    fields = {"body": image, "method": "gradcam,saliency,input_x_gradient,guided_backprop,integrated_gradients"}
    body = answer(service, {**fields, "baseline": "mean", "n_steps": "4", "return": "both"}, explain=True)
    for explanation in body["explanations"]:
        assert np.isfinite(raw_map(explanation)).all()
        assert np.isfinite(explanation["rendering"]["range"]).all()


def test_a_map_that_is_not_a_number_fails_its_own_request_only(
    service: Service, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(question: Question, _: Parameters) -> Plan:
        evaluation = yield Points("gradient", question.inputs, question.coefficients)
        return Attribution(evaluation.slopes[0] * float("nan"), "logit", {})

    monkeypatch.setitem(METHODS, "poisoned", Method("poisoned", "magnitude", plan=poisoned))
    requests = [RawRequest({"body": pngs[0], "method": name}, explain=True) for name in ("poisoned", "saliency")]
    bad, good = service.respond(requests)
    assert (bad.status, good.status) == (500, 200)
    assert json.loads(bad.body)["error"]["code"] == "internal_error"


def test_a_model_sure_beyond_rounding_is_explained_all_the_same(model: Model, pngs: list[bytes]) -> None:
    """A softmax at exactly 0 and 1 has no gradient; logits have."""
    network = deepcopy(model.network)
    network.fc.weight.data *= 1000
    sure = Service(Engine(replace(model, network=network), torch.device("cpu")), ImageLimits())
    body = answer(sure, {"body": pngs[0], "method": "gradcam,saliency", "return": "raw"}, explain=True)
    assert body["prediction"]["probability"] == 1
    for explanation in body["explanations"]:
        values = raw_map(explanation)
        assert np.isfinite(values).all()
        assert np.abs(values).max() > 0


def test_a_saturated_model_fails_alone_and_by_name(model: Model, pngs: list[bytes]) -> None:
    """Weights that give infinite logits: a fault of ours, reported as such, never NaN in JSON."""
    broken = Service(Engine(model, torch.device("cpu")), ImageLimits())
    weight = model.network.fc.weight.data.clone()
    try:
        model.network.fc.weight.data.fill_(float("inf"))
        (response,) = broken.respond([RawRequest({"body": pngs[0]})])
    finally:
        model.network.fc.weight.data.copy_(weight)
    assert response.status == 500
    assert json.loads(response.body)["error"]["code"] == "internal_error"


def test_the_identity_is_the_models(model: Model, service: Service, pngs: list[bytes]) -> None:
    assert answer(service, {"body": pngs[0]})["model"] == {**model.identity(), "engine": "torch"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_a_gpu_gives_the_cpus_answers(model: Model, service: Service, pngs: list[bytes]) -> None:
    device = torch.device("cuda:0")
    on_gpu = Service(Engine(replace(model, network=model.network.to(device)), device), ImageLimits())
    requests = [RawRequest({"body": png}) for png in pngs]
    found = [json.loads(response.body)["logits"] for response in on_gpu.respond(requests)]
    model.network.cpu()
    expected = [json.loads(response.body)["logits"] for response in service.respond(requests)]
    assert np.allclose(found, expected, atol=1e-3)
