import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from handler.api.exchange import Response
from handler.api.image import ImageLimits
from handler.api.request import RawRequest
from handler.api.service import Service
from handler.classes import CODES
from handler.classifier import Classifier
from handler.explain.cache import AttributionCache
from handler.explain.cam import gradcam
from handler.explain.registry import METHODS
from handler.explain.types import Activations, Attribution, EvaluationRequest, Method, Parameters, Plan, Sample
from handler.model.checkpoint import Model
from handler.model.engine import Engine, Forward, Image
from tests.conftest import Pixels
from tests.handler.api.test_image import Encode
from tests.support.answers import answer, raw_map
from tests.support.explaining import classifier_of
from training.data import PathMNIST


@pytest.fixture(scope="module")
def pngs(tiles: Pixels, encode: Encode) -> list[bytes]:
    return [encode(tile) for tile in tiles]


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
        actual, expected = json.loads(response.body), json.loads(alone.body)
        assert actual.keys() == expected.keys()
        if response.status != 200:
            assert actual == expected
            continue
        assert np.allclose(actual["logits"], expected["logits"], atol=1e-4)
        assert actual["prediction"]["code"] == expected["prediction"]["code"]
        for one, other in zip(actual.get("explanations", []), expected.get("explanations", []), strict=True):
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
    yield Service(Classifier(Engine(model, torch.device("cpu")), cache), ImageLimits())
    cache.close()


def test_a_repeated_explanation_comes_from_the_cache(caching: Service, pngs: list[bytes]) -> None:
    request = RawRequest({"body": pngs[0], "method": "saliency,gradcam", "return": "raw"}, explain=True)
    (first,), (second,) = caching.respond([request]), caching.respond([request])
    missed, hit = (json.loads(response.body)["explanations"] for response in (first, second))
    assert (missed[0].pop("cached"), hit[0].pop("cached")) == (False, True)
    assert missed == hit
    assert "cached" not in hit[1]


def test_a_cached_map_serves_any_rendering(caching: Service, pngs: list[bytes]) -> None:
    for options in ({}, {"colormap": "viridis", "size": "100", "sigma": "2", "return": "raw"}):
        request = RawRequest({"body": pngs[0], "method": "saliency", **options}, explain=True)
        (response,) = caching.respond([request])
    assert was_cached(response)


def test_another_target_model_or_pixel_is_computed(
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
    updated = Service(Classifier(other, AttributionCache(tmp_path, 100_000_000)), ImageLimits())
    request = RawRequest({"body": encode(tiles[0]), "method": "saliency", "target": "1"}, explain=True)
    assert not was_cached(updated.respond([request])[0])
    assert was_cached(caching.respond([request])[0])


def test_a_map_cut_short_by_its_budget_is_not_kept(caching: Service, pngs: list[bytes]) -> None:
    fields = {"body": pngs[0], "method": "integrated_gradients", "tolerance": "0.001"}
    # Measures the time of an evaluation on this machine.
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


def test_equal_explanations_in_a_batch_have_the_same_map(caching: Service, pngs: list[bytes]) -> None:
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


def statuses(service: Service, requests: Sequence[RawRequest]) -> list[int]:
    return [response.status for response in service.respond(requests)]


def explanation_request(png: bytes, method: str, **options: str) -> RawRequest:
    return RawRequest({"body": png, "method": method, **options}, explain=True)


def test_a_name_that_utf_8_cannot_hold_is_refused_alone(service: Service, pngs: list[bytes]) -> None:
    requests = [
        RawRequest({"body": b'{"image": "", "\\ud800": 1}'}),
        RawRequest({"body": {"image": "", "\ud800": 1}}),
        RawRequest({"body": pngs[0], "\udfff": "1"}, explain=True),
        RawRequest({"body": pngs[0], "target": "\ud800"}, explain=True),
        RawRequest({"body": pngs[0]}),
    ]
    *bad, good = service.respond(requests)
    assert [response.status for response in bad] == [400] * 4
    assert [json.loads(response.body)["error"]["code"] for response in bad] == ["option_unknown"] * 3 + [
        "target_invalid"
    ]
    assert good.status == 200


def test_a_map_that_is_not_a_number_fails_its_own_request_only(
    service: Service, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(sample: Sample, _: Parameters) -> Plan:
        evaluation = yield EvaluationRequest("gradient", sample.inputs, sample.coefficients)
        return Attribution(evaluation.gradients[0] * float("nan"), "logit", {})

    monkeypatch.setitem(METHODS, "poisoned", Method("poisoned", "magnitude", plan=poisoned))
    bad, good = service.respond([explanation_request(pngs[0], name) for name in ("poisoned", "saliency")])
    assert (bad.status, good.status) == (500, 200)
    assert json.loads(bad.body)["error"]["code"] == "internal_error"


def test_an_answer_that_cannot_be_written_fails_its_own_request_only(
    service: Service, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_json(activations: Activations) -> list[Attribution]:
        return [replace(attribution, details={"layer": object()}) for attribution in gradcam(activations)]

    def without_shape(activations: Activations) -> list[Attribution]:
        return [replace(attribution, values=torch.zeros(2, 0)) for attribution in gradcam(activations)]

    for name, closed_form in (("without_json", without_json), ("without_shape", without_shape)):
        monkeypatch.setitem(METHODS, name, Method(name, "positive", closed_form=closed_form))
    names = ("without_json", "gradcam", "without_shape")
    assert statuses(service, [explanation_request(pngs[0], name) for name in names]) == [500, 200, 500]


def test_a_closed_form_that_fails_for_one_tile_answers_the_others(
    service: Service, pngs: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fragile(activations: Activations) -> list[Attribution]:
        if activations.coefficients[:, 3].any():
            raise RuntimeError("lymphocytes")
        return gradcam(activations)

    monkeypatch.setitem(METHODS, "fragile", Method("fragile", "positive", closed_form=fragile))
    requests = [explanation_request(pngs[0], "fragile", target=target) for target in ("1", "3", "2")]
    assert statuses(service, requests) == [200, 500, 200]


class FragileEngine(Engine):
    """Fails for a batch with a black image."""

    def forward(self, images: Sequence[Image]) -> Forward:
        if not all(image.any() for image in images):
            raise RuntimeError("a black image")
        return super().forward(images)


def test_an_image_that_the_network_cannot_take_fails_alone(model: Model, pngs: list[bytes], encode: Encode) -> None:
    fragile = Service(Classifier(FragileEngine(model, torch.device("cpu"))), ImageLimits())
    black = encode(np.zeros((28, 28, 3), dtype=np.uint8))
    assert statuses(fragile, [RawRequest({"body": image}) for image in (pngs[0], black, pngs[1])]) == [200, 500, 200]


def test_explanations_end_with_the_workers_time_whatever_was_asked(classifier: Classifier, pngs: list[bytes]) -> None:
    hurried = Service(classifier, ImageLimits(), explain_seconds=0)
    requests = [
        explanation_request(pngs[0], "gradcam,occlusion", window="16", budget_ms="300000"),
        explanation_request(pngs[1], "integrated_gradients"),
    ]
    (gradcam, occlusion), (gradients,) = (
        json.loads(response.body)["explanations"] for response in hurried.respond(requests)
    )
    assert "heatmap" in gradcam
    assert occlusion["skipped"]["code"] == gradients["skipped"]["code"] == "budget_exceeded"


def test_more_pictures_than_a_request_may_have_are_refused(service: Service, pngs: list[bytes]) -> None:
    options = {"method": "gradcam,layercam", "target": "all", "return": "images"}
    refused, small, raw = service.respond(
        [
            RawRequest({"body": pngs[0], **options, "size": "1024"}, explain=True),
            RawRequest({"body": pngs[0], **options, "size": "300"}, explain=True),
            RawRequest({"body": pngs[0], **options, "return": "raw"}, explain=True),
        ]
    )
    assert (refused.status, small.status, raw.status) == (400, 200, 200)
    assert json.loads(refused.body)["error"]["field"] == "size"


def test_the_log_says_what_was_answered_and_holds_no_image(service: Service, pngs: list[bytes]) -> None:
    requests = [explanation_request(pngs[0], "gradcam,saliency"), RawRequest({"body": b"no image"})]
    answered, refused = service.respond(requests)
    entry = json.loads(answered.log)
    body = json.loads(answered.body)
    assert entry["image_sha256"] == hashlib.sha256(pngs[0]).hexdigest()
    assert entry["explanations"] == ["gradcam", "saliency"]
    assert (entry["code"], entry["ood_score"]) == (body["prediction"]["code"], body["ood_score"])
    assert (entry["outcome"], entry["batch_size"], set(entry["batch_seconds"])) == ("ok", 2, {"model", "explain"})
    assert json.loads(refused.log)["outcome"] == "image_unreadable"
    assert "code" not in json.loads(refused.log)


def test_a_prediction_of_probability_1_is_explained(model: Model, pngs: list[bytes]) -> None:
    """A softmax at exactly 0 and 1 has no gradient; logits have."""
    network = deepcopy(model.network)
    network.fc.weight.data *= 1000
    sure = Service(classifier_of(model, network), ImageLimits())
    body = answer(sure, {"body": pngs[0], "method": "gradcam,saliency", "return": "raw"}, explain=True)
    assert body["prediction"]["probability"] == 1
    for explanation in body["explanations"]:
        values = raw_map(explanation)
        assert np.isfinite(values).all()
        assert np.abs(values).max() > 0


def test_a_model_with_infinite_logits_is_an_internal_error(model: Model, pngs: list[bytes]) -> None:
    network = deepcopy(model.network)
    network.fc.weight.data.fill_(float("inf"))
    (response,) = Service(classifier_of(model, network), ImageLimits()).respond([RawRequest({"body": pngs[0]})])
    assert response.status == 500
    assert json.loads(response.body)["error"]["code"] == "internal_error"


def test_the_identity_is_the_models(model: Model, service: Service, pngs: list[bytes]) -> None:
    assert answer(service, {"body": pngs[0]})["model"] == {**model.identity(), "engine": "torch"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
def test_a_gpu_gives_the_cpus_answers(model: Model, service: Service, pngs: list[bytes]) -> None:
    device = torch.device("cuda:0")
    confidence = model.confidence and model.confidence.to(device)
    moved = replace(model, network=deepcopy(model.network).to(device), confidence=confidence)
    on_gpu = Service(Classifier(Engine(moved, device)), ImageLimits())
    requests = [RawRequest({"body": png}) for png in pngs]
    actual, expected = (
        [json.loads(response.body)["logits"] for response in one.respond(requests)] for one in (on_gpu, service)
    )
    assert np.allclose(actual, expected, atol=1e-3)
