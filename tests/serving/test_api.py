"""The API contract, on a running TorchServe with the real archive."""

import base64
import gzip
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import orjson
import pytest
import requests
import torch
from captum.attr import IntegratedGradients, LayerGradCam
from PIL import Image

from handler.classes import CODES
from handler.explain.baselines import baseline_input
from handler.model.backends import BACKENDS, REDUCED
from handler.model.checkpoint import Model
from handler.model.preprocess import preprocess
from serving.supervisor import TILE, TorchServe
from tests.conftest import Pixels
from tests.support.answers import raw_map
from tests.support.explaining import network_inputs
from tests.support.images import Encode, png_header
from tests.support.metrics import counted
from tests.support.shipped import VERSION
from training.data import PathMNIST

Post = Callable[..., requests.Response]
HIT_OR_MISS = ("hit", "miss")


@pytest.fixture(scope="module")
def post(server: TorchServe) -> Post:
    def post(verb: str = "predictions", data: Any = None, timeout: float = 120, **options: Any) -> requests.Response:
        return requests.post(f"{server.url}/{verb}/pathmnist", data=data, timeout=timeout, **options)

    return post


@pytest.fixture(scope="module")
def pngs(tiles: Pixels, encode: Encode) -> list[bytes]:
    return [encode(tile) for tile in tiles]


def logits_of(response: requests.Response) -> np.ndarray[Any, Any]:
    assert response.status_code == 200, response.text
    return np.array(response.json()["logits"])


def test_the_answer_is_the_networks(post: Post, pngs: list[bytes], tiles: Pixels, model: Model) -> None:
    response = post(data=pngs[0])
    assert response.headers["content-type"] == "application/json"
    with torch.no_grad():
        expected = model.network(preprocess([torch.from_numpy(tiles[0])], model.preprocessing))[0]
    assert np.abs(logits_of(response) - expected.numpy()).max() < 1e-3 * expected.abs().max()
    named = response.json()["model"]
    # The fastest on this machine, among those in float32.
    assert named.pop("engine") in set(BACKENDS) - REDUCED
    assert named == model.identity()
    assert list(response.json()["probabilities"]) == list(CODES)


def test_every_way_to_send_an_image_gives_the_same_answer(post: Post, server: TorchServe) -> None:
    tile = TILE.read_bytes()
    encoded = base64.b64encode(tile).decode()
    expected = logits_of(post(data=tile))
    answers = [
        post(data=tile, headers={"Content-Type": "image/png"}),
        post(files={"data": ("tile.png", tile, "image/png")}),
        post(json={"image": encoded}),
        requests.put(f"{server.url}/predictions/pathmnist", data=tile, timeout=60),
    ]
    for answer in answers:
        assert np.abs(logits_of(answer) - expected).max() < 1e-5


@pytest.mark.parametrize(
    "request_",
    [
        {"data": gzip.compress(TILE.read_bytes()), "headers": {"Content-Encoding": "gzip"}},
        {"data": zlib.compress(TILE.read_bytes()), "headers": {"Content-Encoding": "deflate"}},
        {"files": {"image": TILE.read_bytes()}},
        {"files": {"file": ("tile", TILE.read_bytes(), "application/octet-stream")}},
        {"data": b'{"image":"' + base64.b64encode(TILE.read_bytes()) + b'"}'},
        {"data": b'\xef\xbb\xbf\n{"image":"' + base64.b64encode(TILE.read_bytes()) + b'"}'},
        {
            "data": b'{"image":"' + base64.urlsafe_b64encode(TILE.read_bytes()) + b'"}',
            "headers": {"Content-Type": "application/x-www-form-urlencoded"},
        },
        {"json": {"image": base64.encodebytes(TILE.read_bytes()).decode()}},
    ],
    ids=["gzip", "deflate", "image=@", "file=@", "no blank, no type", "byte order mark", "curl -d", "wrapped base64"],
)
def test_less_usual_ways_give_the_same_answer_too(request_: dict[str, Any], post: Post) -> None:
    expected = logits_of(post(data=TILE.read_bytes()))
    assert np.abs(logits_of(post(**request_)) - expected).max() < 1e-5


TWICE: dict[str, tuple[dict[str, Any], str]] = {
    "query": ({"data": TILE.read_bytes(), "params": [("target", "1"), ("target", "2")]}, "target"),
    "form": ({"files": {"data": TILE.read_bytes()}, "data": [("target", "1"), ("target", "2")]}, "target"),
    "JSON": ({"data": b'{"image": "", "target": 1, "target": 2}'}, "target"),
    "query and form": ({"files": {"data": TILE.read_bytes()}, "data": {"size": 64}, "params": {"size": 64}}, "size"),
    "query and JSON": ({"json": {"image": "", "size": 64}, "params": {"size": 64}}, "size"),
    "files of two fields": ({"files": [("data", TILE.read_bytes()), ("image", TILE.read_bytes())]}, "image"),
    "images in JSON": ({"data": b'{"image": "", "image": ""}'}, "image"),
}


@pytest.mark.parametrize("way", TWICE)
def test_what_is_said_twice_is_refused(way: str, post: Post) -> None:
    request, field = TWICE[way]
    response = post("explanations", **request)
    assert (response.status_code, response.json()["error"]["field"]) == (400, field)
    assert response.json()["error"]["code"] in ("option_repeated", "image_repeated")


def test_a_batch_gets_the_answers_of_single_requests(post: Post, real_data: PathMNIST, encode: Encode) -> None:
    files = [encode(tile) for tile in real_data.test.spread(64)]
    with ThreadPoolExecutor(8) as pool:
        expected = np.stack([logits_of(answer) for answer in pool.map(lambda file: post(data=file), files)])
    for sent in (
        {"files": [("data", file) for file in files]},
        {"json": {"images": [base64.b64encode(file).decode() for file in files]}},
    ):
        response = post(**sent)
        assert response.status_code == 200
        found = np.array([result["logits"] for result in response.json()["results"]])
        # Up to what an engine's float32 answers differ by in batches of other sizes.
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_damaged_image_harms_no_other_of_its_batch(post: Post, pngs: list[bytes]) -> None:
    files = [pngs[0], pngs[1][:-40], b"", pngs[2]]
    response = post("explanations", {"method": "gradcam"}, files=[("image", file) for file in files])
    first, damaged, empty, last = response.json()["results"]
    assert response.status_code == 200
    assert damaged["error"]["code"] in ("image_truncated", "image_corrupt")
    assert empty["error"]["code"] == "image_missing"
    for result, file in ((first, pngs[0]), (last, pngs[2])):
        assert np.abs(np.array(result["logits"]) - logits_of(post(data=file))).max() < 1e-3
        assert [item["method"] for item in result["explanations"]] == ["gradcam"]


def test_an_error_of_all_images_is_the_batchs(post: Post, pngs: list[bytes]) -> None:
    response = post(files=[("data", file) for file in pngs[:3]], params={"colour": "red"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "option_unknown")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_an_image_that_calls_itself_a_form_is_taken_as_the_image(
    file_format: str, post: Post, tiles: Pixels, encode: Encode
) -> None:
    """Like `curl --data-binary`."""
    image, headers = encode(tiles[0], file_format), {"Content-Type": "application/x-www-form-urlencoded"}
    assert np.abs(logits_of(post(data=image, headers=headers)) - logits_of(post(data=image))).max() < 1e-5


def test_options_come_by_query_form_or_json(post: Post, pngs: list[bytes]) -> None:
    options = {"method": "gradcam", "target": "LYM"}
    answers = [
        post("explanations", pngs[0], params=options),
        post("explanations", options, files={"data": pngs[0]}),
        post("explanations", json={"image": base64.b64encode(pngs[0]).decode(), **options}),
        post(data=pngs[0], params={"explain": "gradcam", "target": "3"}),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        (explanation,) = answer.json()["explanations"]
        assert explanation["method"] == "gradcam"
        assert explanation["target"] == {"class_id": 3, "code": "LYM"}


def test_gradcam_equals_captum(post: Post, real_data: PathMNIST, model: Model, encode: Encode) -> None:
    for tile, target in zip(real_data.test.images[:3], (7, 5, 8), strict=True):
        response = post("explanations", encode(tile), params={"target": target, "return": "raw"})
        actual = raw_map(response.json()["explanations"][0])
        captum = LayerGradCam(model.network, model.network.layer4)
        expected = captum.attribute(network_inputs(model, tile[None]), target=target)[0, 0].detach().numpy()
        assert np.abs(actual - expected).max() < 1e-4 * np.abs(expected).max()


def test_integrated_gradients_equals_captum(post: Post, real_data: PathMNIST, model: Model, encode: Encode) -> None:
    for tile, target in zip(real_data.test.images[3:5], (7, 8), strict=True):
        options = {"method": "integrated_gradients", "n_steps": 16, "target": target, "return": "raw"}
        actual = raw_map(post("explanations", encode(tile), params=options).json()["explanations"][0])
        inputs = network_inputs(model, tile[None])
        expected = IntegratedGradients(model.network).attribute(
            inputs,
            baselines=baseline_input("black", inputs, model.preprocessing),
            target=target,
            n_steps=16,
            method="gausslegendre",
        )
        difference = np.abs(actual - expected[0].detach().numpy()).max()
        assert difference < 1e-4 * float(expected.abs().max())


def test_pictures_have_the_images_aspect(post: Post, encode: Encode, tiles: Pixels) -> None:
    wide = Image.fromarray(tiles[0]).resize((120, 60))
    (explanation,) = post("explanations", encode(wide, "JPEG")).json()["explanations"]
    for name in ("heatmap", "overlay"):
        picture = Image.open(BytesIO(base64.b64decode(explanation[name])))
        picture.load()
        assert (picture.format, picture.size) == ("PNG" if name == "heatmap" else "JPEG", (224, 112))


BAD: list[tuple[str, Any, dict[str, Any], int, str]] = [
    ("predictions", b"", {}, 400, "image_missing"),
    ("predictions", b"just text", {}, 415, "image_unreadable"),
    ("predictions", png_header(50_000, 50_000), {}, 413, "image_too_large"),
    ("predictions", "1x1", {}, 400, "image_too_small"),
    ("predictions", "truncated", {}, 400, "image_truncated"),
    ("predictions", "animated", {}, 400, "image_animated"),
    ("explanations", "good", {"method": "lime"}, 400, "method_unknown"),
    ("explanations", "good", {"target": "9"}, 400, "target_invalid"),
    ("explanations", "good", {"method": "integrated_gradients", "n_steps": 10**9}, 400, "parameter_invalid"),
    ("predictions", "good", {"brightness": "5"}, 400, "option_unknown"),
    ("predictions", "good", {"explain": "integrated_gradients"}, 400, "method_misplaced"),
]


@pytest.fixture(scope="module")
def files(pngs: list[bytes], tiles: Pixels, encode: Encode) -> dict[str, bytes]:
    noise = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    frames = [Image.fromarray(tile) for tile in tiles[:2]]
    return {
        "good": pngs[0],
        "1x1": encode(np.zeros((1, 1, 3), dtype=np.uint8)),
        "truncated": noise[: len(noise) // 2],
        "animated": encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
    }


@pytest.mark.parametrize(("verb", "data", "options", "status", "code"), BAD)
def test_bad_input_gets_its_own_error(
    verb: str, data: Any, options: dict[str, Any], status: int, code: str, post: Post, files: dict[str, bytes]
) -> None:
    response = post(verb, files[data] if isinstance(data, str) else data, params=options)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"code", "message", "field"}
    assert error["code"] == code


@pytest.mark.parametrize(
    ("body", "code"),
    [("{not json", "json_invalid"), ('{"image": "%%%"}', "base64_invalid"), ("[1, 2]", "json_invalid")],
)
def test_bad_json_gets_its_own_error(body: str, code: str, post: Post) -> None:
    response = post(data=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, code)


def test_a_mixed_batch_serves_the_good_and_refuses_the_bad(
    post: Post, server: TorchServe, files: dict[str, bytes], pngs: list[bytes]
) -> None:
    """Eight concurrent requests share batches, according to the workers' metrics, and each gets its own response."""
    mix: list[tuple[str, bytes, dict[str, Any]]] = [
        ("predictions", pngs[1], {}),
        ("explanations", pngs[2], {"target": "TUM", "return": "raw"}),
        ("predictions", files["truncated"], {}),
        ("explanations", pngs[3], {"method": "saliency", "target": "MUS", "return": "raw"}),
        ("explanations", pngs[4], {"target": "9"}),
        ("predictions", png_header(50_000, 50_000), {}),
        ("explanations", pngs[5], {"method": "integrated_gradients", "n_steps": "4", "return": "raw"}),
        ("predictions", pngs[6], {"explain": "gradcam", "return": "raw"}),
    ]
    alone = [post(verb, data, params=options) for verb, data, options in mix]
    before = counted(server.metrics_url, "pathmnist_batch_size_count")
    with ThreadPoolExecutor(len(mix)) as pool:
        together = list(pool.map(lambda item: post(item[0], item[1], params=item[2]), mix))
    batches = counted(server.metrics_url, "pathmnist_batch_size_count") - before
    assert [answer.status_code for answer in together] == [200, 200, 400, 200, 400, 413, 200, 200]
    assert 2 <= batches <= 4, f"eight requests took {batches} batches in two pools"
    for one, other in zip(together, alone, strict=True):
        if one.status_code != 200:
            assert one.json() == other.json()
            continue
        assert np.abs(logits_of(one) - logits_of(other)).max() < 1e-4 * np.abs(logits_of(other)).max()
        for result, expected in zip(
            one.json().get("explanations", []), other.json().get("explanations", []), strict=True
        ):
            assert (result["method"], result["target"]) == (expected["method"], expected["target"])
            assert np.abs(raw_map(result) - raw_map(expected)).max() < 1e-4 * np.abs(raw_map(expected)).max()


def test_real_tiles_keep_their_class_through_the_server(
    post: Post, real_data: PathMNIST, model: Model, encode: Encode
) -> None:
    images = real_data.test.images[:40]
    with torch.no_grad():
        inputs = preprocess([torch.from_numpy(image) for image in images], model.preprocessing)
        expected = model.network(inputs).argmax(dim=1).tolist()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda image: post(data=encode(image)), images))
    assert [answer.json()["prediction"]["class_id"] for answer in answers] == expected


def test_the_management_api_loads_no_foreign_model(server: TorchServe) -> None:
    response = requests.post(
        f"{server.management_url}/models", params={"url": "http://127.0.0.1:1/other.mar"}, timeout=30
    )
    assert response.status_code in (403, 405)


def test_explanations_have_workers_of_their_own(server: TorchServe, post: Post, pngs: list[bytes]) -> None:
    def asked() -> list[float]:
        pools = ("pathmnist", "pathmnist-explain")
        return [counted(server.metrics_url, "ts_inference_requests_total", model_name=pool) for pool in pools]

    before = asked()
    for verb in ("predictions", "explanations", "explanations"):
        assert post(verb, pngs[0]).status_code == 200
    assert [now - then for now, then in zip(asked(), before, strict=True)] == [1, 2]


def test_cache_hits_are_in_the_answer_and_in_the_metrics(server: TorchServe, post: Post, pngs: list[bytes]) -> None:
    def results() -> list[float]:
        return [
            counted(server.metrics_url, "pathmnist_explanation_cache_total", result=result) for result in HIT_OR_MISS
        ]

    before = results()
    options = {"method": "smoothgrad", "n_samples": "3", "noise": "0.21"}
    answers = [post("explanations", pngs[7], params=options).json() for _ in range(3)]
    assert [item["explanations"][0]["cached"] for item in answers] == [False, True, True]
    assert [now - then for now, then in zip(results(), before, strict=True)] == [2, 1]


def test_the_answer_is_compact_json(post: Post, pngs: list[bytes]) -> None:
    body = post(data=pngs[0]).content
    assert body == orjson.dumps(orjson.loads(body))


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/predictions/pathmnist", b"\0" * (16 * 1024 * 1024 + 1), 413, "request_too_large"),
        ("POST", "/predictions/other", b"x", 404, "not_found"),
        ("POST", "/predictions/pathmnist/9.9", b"x", 404, "not_found"),
        ("POST", "/nowhere", b"x", 404, "not_found"),
        ("GET", "/predictions/pathmnist", None, 405, "method_not_allowed"),
    ],
)
def test_errors_outside_the_handler_have_the_same_form(
    method: str, path: str, body: bytes | None, status: int, code: str, server: TorchServe
) -> None:
    response = requests.request(method, server.url + path, data=body, timeout=60)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"code", "message", "field"}
    assert response.json()["error"]["code"] == code


def test_a_version_can_be_named(server: TorchServe, pngs: list[bytes]) -> None:
    response = requests.post(f"{server.url}/explanations/pathmnist/{VERSION}?target=STR", data=pngs[0], timeout=60)
    assert response.json()["explanations"][0]["target"]["code"] == "STR"


def test_torchserves_own_address_takes_options_by_form_and_json(server: TorchServe, pngs: list[bytes]) -> None:
    url = f"{server.inference_url}/explanations/pathmnist"
    encoded = base64.b64encode(pngs[0]).decode()
    options = {"method": "saliency", "target": "LYM"}
    answers = [
        requests.post(url, data=options, files={"data": pngs[0]}, timeout=60),
        requests.post(url, json={"image": encoded, **options}, timeout=60),
    ]
    for answer in answers:
        (explanation,) = answer.json()["explanations"]
        assert (explanation["method"], explanation["target"]["code"]) == ("saliency", "LYM")
