"""Clients that people already have, unmodified, get the numbers of `/predictions`."""

import base64
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from serving.gateway.open_inference import HEADER_LENGTH, OUTPUTS
from serving.supervisor import TILE, TorchServe
from tests.support.answers import raw_map
from tests.support.clients import ask_through
from tests.support.images import Encode
from training.data import PathMNIST

INFER = "v2/models/pathmnist/infer"


@pytest.fixture(scope="module")
def files(real_data: PathMNIST, encode: Encode, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("tiles")
    for number, tile in enumerate(real_data.test.spread(64)):
        (folder / f"{number:02}.png").write_bytes(encode(tile))
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def expected(server: TorchServe, files: list[Path]) -> list[dict[str, Any]]:
    """The answers of `/predictions` to the same files."""
    images = [base64.b64encode(file.read_bytes()).decode() for file in files]
    options = {"include": "embedding", "explain": "gradcam", "target": "all", "return": "raw"}
    response = requests.post(
        f"{server.url}/predictions/pathmnist", json={"images": images}, params=options, timeout=300
    )
    results: list[dict[str, Any]] = response.json()["results"]
    return results


@pytest.fixture(scope="module")
def by_triton(server: TorchServe, files: list[Path]) -> dict[str, Any]:
    return ask_through("triton_client.py", server.url.removeprefix("http://"), *files)


def assert_equal(found: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """By default up to what an engine's float32 answers differ by in batches of other sizes."""
    assert np.shape(found) == np.shape(expected)
    assert np.abs(np.array(found) - np.array(expected)).max() < tolerance * max(1, np.abs(expected).max())


def test_tritons_client_gets_the_same_numbers(
    server: TorchServe, files: list[Path], expected: list[dict[str, Any]], by_triton: dict[str, Any]
) -> None:
    found = by_triton
    assert found["ready"] == [True, True, True]
    assert {item["name"]: item["datatype"] for item in found["metadata"]["outputs"]} == {
        name: tensor.datatype for name, tensor in OUTPUTS.items()
    }
    for way, answer in found["answers"].items():
        rows = expected[: int(way.split()[0])]
        assert_equal(answer["logits"], [row["logits"] for row in rows])
        assert_equal(answer["probabilities"], [list(row["probabilities"].values()) for row in rows])
        assert_equal(answer["embedding"], [row["embedding"] for row in rows])
        assert_equal(answer["cam"], [[raw_map(item) for item in row["explanations"]] for row in rows])
        assert answer["class"] == [row["prediction"]["code"] for row in rows]
    alone = requests.post(f"{server.url}/predictions/pathmnist", data=files[0].read_bytes(), timeout=60).json()
    for way in ("1 binary", "1 JSON"):
        assert_equal(found["answers"][way]["logits"], [alone["logits"]], tolerance=1e-6)
    for way in ("pixels", "compressed"):
        assert_equal(found[way]["logits"], [row["logits"] for row in expected[:8]])
    assert found["error"].startswith("415 image_unreadable: image 1: ")


def test_tritons_client_gets_the_map_of_explanations(
    server: TorchServe, files: list[Path], by_triton: dict[str, Any]
) -> None:
    found = by_triton["explanation"]
    options = {"method": "saliency", "target": "TUM", "return": "raw"}
    response = requests.post(
        f"{server.url}/explanations/pathmnist", data=files[0].read_bytes(), params=options, timeout=60
    )
    assert_equal(np.squeeze(found["explanation"]), np.squeeze(raw_map(response.json()["explanations"][0])))


def test_kserves_client_gets_the_same_numbers_by_both_protocols(
    server: TorchServe, files: list[Path], expected: list[dict[str, Any]]
) -> None:
    found = ask_through("kserve_client.py", server.url, *files)
    logits = [row["logits"] for row in expected]
    assert found["ready"] == [True, True]
    assert found["ready by the first protocol"] is True
    for way, answer in found["answers"].items():
        assert_equal(answer, logits[: int(way.split()[0])])
    assert_equal(found["predictions"], logits[:8])
    assert found["explanations"] == ["gradcam"]
    assert "image_unreadable" in found["error"]


def tensor(**changes: Any) -> dict[str, Any]:
    data = [base64.b64encode(TILE.read_bytes()).decode()]
    return {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": data, **changes}]}


def test_tensors_have_a_field_of_view_and_a_fitness(server: TorchServe) -> None:
    expected = requests.post(f"{server.url}/predictions/pathmnist", data=TILE.read_bytes(), timeout=60).json()
    url = f"{server.url}/v2/models/pathmnist/infer"
    request = {**tensor(), "outputs": [{"name": "fit"}, {"name": "class"}]}
    found = requests.post(url, json={**request, "parameters": {"mpp": 4}}, timeout=60).json()
    words = {output["name"]: output["data"] for output in found["outputs"]}
    assert words == {"fit": [expected["fit"]["verdict"]], "class": [expected["prediction"]["code"]]}
    refused = requests.post(url, json={**request, "parameters": {"mpp": 0.5}}, timeout=60)
    assert refused.status_code == 400
    assert refused.json()["error"].startswith("field_too_small: image 0: ")


REFUSED: dict[str, tuple[Mapping[str, Any] | bytes, str]] = {
    "no JSON": (b"{", "json_invalid"),
    "a list": (b"[]", "tensor_invalid"),
    "no input": ({}, "tensor_invalid"),
    "two inputs": ({"inputs": tensor()["inputs"] * 2}, "tensor_invalid"),
    "another name": (tensor(name="picture"), "tensor_invalid"),
    "another type": (tensor(datatype="FP32"), "tensor_invalid"),
    "another shape": (tensor(shape=[2]), "tensor_invalid"),
    "a negative shape": (tensor(shape=[-1]), "tensor_invalid"),
    "too many images": (tensor(shape=[65]), "images_invalid"),
    "no base64": (tensor(data=["%"]), "base64_invalid"),
    "no pixels": (tensor(datatype="UINT8", shape=[1, 28, 28, 3], data=[1, 2, 3]), "tensor_invalid"),
    "large pixels": (tensor(datatype="UINT8", shape=[1, 1, 1, 3], data=[1, 2, 300]), "tensor_invalid"),
    "a tiny image": (tensor(datatype="UINT8", shape=[1, 1, 1, 3], data=[[[[1, 2, 3]]]]), "image_too_small"),
    "an output without a name": (tensor() | {"outputs": [{"name": []}]}, "parameter_invalid"),
    "an unknown output": (tensor() | {"outputs": [{"name": "mask"}]}, "parameter_invalid"),
    "an option without its output": (tensor() | {"parameters": {"method": "saliency"}}, "option_misplaced"),
    "several methods": (
        tensor() | {"outputs": [{"name": "explanation"}], "parameters": {"method": "gradcam,saliency"}},
        "tensor_invalid",
    ),
    "an unknown method": (
        tensor() | {"outputs": [{"name": "explanation"}], "parameters": {"method": "magic"}},
        "method_unknown",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_tensor_is_an_error_in_the_protocols_form(name: str, server: TorchServe) -> None:
    content, code = REFUSED[name]
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    response = requests.post(f"{server.url}/{INFER}", data=body, timeout=60)
    assert response.status_code in (400, 415)
    assert response.json()["error"].startswith(f"{code}: ")


@pytest.mark.parametrize("tail", [b"", b"\x05", struct.pack("<I", 5) + b"abc", struct.pack("<I", 2**32 - 1)])
def test_binary_data_that_ends_early_is_an_error(tail: bytes, server: TorchServe) -> None:
    head = json.dumps(
        {
            "inputs": [
                {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}
            ]
        }
    ).encode()
    for length, body in ((str(len(head)), head + tail), ("-1", head), ("99999", head), ("9" * 5000, head), ("x", head)):
        response = requests.post(f"{server.url}/{INFER}", data=body, headers={HEADER_LENGTH: length}, timeout=60)
        assert (response.status_code, response.json()["error"].split(":")[0]) == (400, "tensor_invalid")


def test_maps_too_large_for_json_have_to_be_binary(server: TorchServe) -> None:
    content = tensor(shape=[8], data=[base64.b64encode(TILE.read_bytes()).decode()] * 8)
    request = {**content, "parameters": {"method": "saliency"}, "outputs": [{"name": "explanation"}]}
    response = requests.post(f"{server.url}/{INFER}", json=request, timeout=120)
    assert (response.status_code, response.json()["error"].split(":")[0]) == (400, "tensor_invalid")
    request["outputs"] = [{"name": "explanation", "parameters": {"binary_data": True}}]
    response = requests.post(f"{server.url}/{INFER}", json=request, timeout=120)
    head = json.loads(response.content[: int(response.headers[HEADER_LENGTH])])
    (output,) = head["outputs"]
    assert output["shape"] == [8, 3, 224, 224]
    assert len(response.content) == int(response.headers[HEADER_LENGTH]) + 8 * 3 * 224 * 224 * 4


def test_another_version_and_another_model_are_not_found(server: TorchServe) -> None:
    version = requests.get(f"{server.url}/v2/models/pathmnist", timeout=10).json()["versions"][0]
    assert requests.get(f"{server.url}/v2/models/pathmnist/versions/{version}/ready", timeout=60).ok
    for path in ("v2/models/pathmnist/versions/0.1", "v2/models/other", "v1/models/other", "v2/other"):
        response = requests.get(f"{server.url}/{path}", timeout=10)
        assert (response.status_code, response.json()["error"].split(":")[0]) == (404, "not_found")
