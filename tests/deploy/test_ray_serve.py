"""The API on a Ray cluster of two nodes: responses equal TorchServe's, and none is lost if a replica is killed."""

import base64
import gzip
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
from PIL import Image
from ray import serve
from ray.cluster_utils import Cluster

from deploy.ray.serve import MAX_REQUEST_SIZE, NAME, application, grpc_front, start
from serving.gateway.settings import ROOT, Settings, read_properties
from serving.ports import free_ports
from serving.supervisor import TorchServe
from tests.conftest import Pixels
from tests.support.clients import ask_through
from tests.support.edge import in_thread

PAGE = "https://page.example"
TOKEN = {"Authorization": "Bearer token"}
TILE = (ROOT / "docs" / "tile.png").read_bytes()
JSON = {"Content-Type": "application/json"}
IMAGE = base64.b64encode(TILE).decode()


@pytest.fixture(scope="module")
def url(cluster: Cluster, archive: Any) -> Iterator[str]:
    """The URL of a server with a token and two replicas in each pool."""
    (port,) = free_ports(1)
    settings = Settings(cors_allowed_origin=(PAGE,))
    yield start(application(archive, replicas=(2, 2), token="token", settings=settings), "127.0.0.1", port)
    serve.delete(NAME)


@pytest.fixture(scope="module")
def grpc_address(url: str, archive: Any) -> Iterator[str]:
    """The same pools over gRPC."""
    settings = Settings(edge_grpc_port=free_ports(1)[0])
    with in_thread([grpc_front(archive, "127.0.0.1", "token", settings)]):
        yield f"127.0.0.1:{settings.edge_grpc_port}"


def replicas(name: str) -> list[psutil.Process]:
    """The processes of this test that serve a pool."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if f"ServeReplica:{NAME}:{name}" in " ".join(child.cmdline())]


def pixels(encoded: str) -> Pixels:
    return np.asarray(Image.open(BytesIO(base64.b64decode(encoded))).convert("RGB"))


def assert_same(one: Any, other: Any, name: str = "") -> None:
    """Assert equal JSON, up to float32 rounding in numbers and pictures, the engine and the state of the caches."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), name
        for key in one.keys() - {"cached", "engine"}:
            assert_same(one[key], other[key], key)
    elif isinstance(one, list):
        assert len(one) == len(other), name
        for first, second in zip(one, other, strict=True):
            assert_same(first, second, name)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4), name
    elif name in ("heatmap", "overlay"):
        assert np.abs(pixels(one).astype(int) - pixels(other)).mean() < 1, name
    else:
        assert one == other, name


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("predictions/pathmnist", {"data": TILE}),
        ("predictions/pathmnist?explain=gradcam,layercam&target=TUM&include=none", {"data": TILE}),
        ("explanations/pathmnist?colormap=viridis", {"data": TILE}),
        ("explanations/pathmnist", {"json": {"image": IMAGE, "method": "saliency", "return": "images"}}),
        ("explanations/pathmnist", {"files": {"data": TILE}, "data": {"method": "gradcam", "contrast": "STR"}}),
        ("predictions/pathmnist", {"data": TILE, "headers": {"Content-Type": "application/x-www-form-urlencoded"}}),
        ("predictions/pathmnist", {"data": {"explain": "gradcam"}}),
        ("predictions/pathmnist", {"data": TILE[:200]}),
        ("predictions/pathmnist", {"data": b"no image"}),
        ("predictions/pathmnist?explain=saliency", {"data": TILE}),
        ("predictions/pathmnist?colour=red", {"data": TILE}),
        ("predictions/pathmnist", {"data": b" {", "headers": JSON}),
        ("predictions/pathmnist", {"data": b"5", "headers": JSON}),
        ("predictions/pathmnist", {"data": b'\xef\xbb\xbf{"image":"' + IMAGE.encode() + b'"}'}),
        ("predictions/pathmnist", {"data": b'{"image": "", "image": ""}'}),
        ("predictions/pathmnist", {"data": gzip.compress(TILE), "headers": {"Content-Encoding": "gzip"}}),
        ("predictions/pathmnist", {"data": TILE, "headers": {"Content-Encoding": "gzip"}}),
        ("predictions/pathmnist", {"data": TILE, "headers": {"Content-Encoding": "zstd"}}),
        ("predictions/pathmnist?include=none&include=none", {"data": TILE}),
        ("explanations/pathmnist?target=1", {"files": {"data": TILE}, "data": {"target": "1"}}),
        ("explanations/pathmnist", {"files": {"image": TILE, "data": TILE}}),
        ("predictions/pathmnist", {"files": {"image": TILE}}),
        ("predictions/pathmnist", {"files": {"picture": TILE}}),
        ("predictions/pathmnist", {"data": TILE, "headers": {"Content-Type": "multipart/form-data"}}),
        ("predictions/pathmnist", {"data": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}),
        ("explanations/pathmnist", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_answers_are_those_of_torchserve(server: TorchServe, url: str, path: str, request_: dict[str, Any]) -> None:
    one = requests.post(f"{server.url}/{path}", timeout=60, **request_)
    headers = {**TOKEN, **request_.get("headers", {})}
    other = requests.post(f"{url}/{path}", timeout=60, **{**request_, "headers": headers})
    assert other.status_code == one.status_code
    assert other.headers["Content-Type"].split(";")[0] == "application/json"
    assert_same(other.json(), one.json())
    assert uuid.UUID(other.headers["X-Request-Id"])


@pytest.mark.parametrize(
    ("method", "path", "data", "status", "code"),
    [
        ("GET", "predictions/pathmnist", b"", 405, "method_not_allowed"),
        ("POST", "predictions/another", TILE, 404, "not_found"),
        ("POST", "predictions/pathmnist", bytes(MAX_REQUEST_SIZE + 1), 413, "request_too_large"),
    ],
)
def test_errors_before_the_model_have_the_edges_form(
    server: TorchServe, url: str, method: str, path: str, data: bytes, status: int, code: str
) -> None:
    for address in (server.url, url):
        answer = requests.request(method, f"{address}/{path}", data=data, headers=TOKEN, timeout=60)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == code
        assert answer.json().keys() == {"error"}
        assert status != 405 or set(answer.headers["Allow"].replace(" ", "").split(",")) == {"POST", "PUT"}


def test_a_stranger_gets_a_sign_of_life_and_no_answer(url: str) -> None:
    for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": b"Bearer \xff"}):
        answer = requests.post(f"{url}/predictions/pathmnist", data=TILE, headers=headers, timeout=60)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "unauthorized"
    assert requests.get(f"{url}/ping", timeout=60).json() == {"status": "Healthy"}


def test_a_page_of_an_allowed_origin_may_call(url: str) -> None:
    headers = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
    preflight = requests.options(f"{url}/predictions/pathmnist", headers=headers, timeout=60)
    answer = requests.post(f"{url}/predictions/pathmnist", headers={"Origin": PAGE}, timeout=60)
    assert (preflight.status_code, answer.status_code) == (204, 401)
    for response in (preflight, answer):
        assert response.headers["Access-Control-Allow-Origin"] == PAGE


def test_a_request_has_the_same_limit_as_at_the_edge() -> None:
    assert int(read_properties(ROOT / "config.properties")["max_request_size"]) == MAX_REQUEST_SIZE


def test_a_killed_replica_loses_no_request(url: str, tiles: Pixels, encode: Callable[..., bytes]) -> None:
    """The replica gets SIGKILL while it handles requests. Clients do not retry."""
    images = [encode(tile) for tile in tiles]

    def ask(index: int) -> tuple[int, str]:
        image = images[index % len(images)]
        answer = requests.post(f"{url}/predictions/pathmnist", data=image, headers=TOKEN, timeout=60)
        return answer.status_code, answer.json().get("prediction", {}).get("code", "")

    alone = [ask(index) for index in range(len(images))]
    before = replicas("Predictions")
    assert len(before) == 2
    with ThreadPoolExecutor(16) as clients:
        answers = [clients.submit(ask, index) for index in range(120)]
        list(islice(as_completed(answers), 20))
        os.kill(before[0].pid, signal.SIGKILL)
        got = [answer.result() for answer in answers]
    assert got == [alone[index % len(alone)] for index in range(120)]
    assert not before[0].is_running()


def test_several_images_are_answered_in_order(url: str, tiles: Pixels, encode: Callable[..., bytes]) -> None:
    files = [encode(tile) for tile in tiles[:3]]
    sent = [("data", file) for file in (*files, b"no image")]
    results = requests.post(f"{url}/predictions/pathmnist", files=sent, headers=TOKEN, timeout=120).json()["results"]
    for result, file in zip(results[:3], files, strict=True):
        alone = requests.post(f"{url}/predictions/pathmnist", data=file, headers=TOKEN, timeout=60).json()
        assert_same(result, alone)
    assert results[3]["error"]["code"] == "image_unreadable"


def test_tritons_and_kserves_clients_get_the_same_numbers(url: str, grpc_address: str, tmp_path: Path) -> None:
    files = [tmp_path / f"{number:02}.png" for number in range(64)]
    for file in files:
        file.write_bytes(TILE)
    expected = requests.post(f"{url}/predictions/pathmnist", data=TILE, headers=TOKEN, timeout=60).json()["logits"]
    by_triton = ask_through("triton_client.py", url.removeprefix("http://"), *files, token="token")
    by_kserve = ask_through("kserve_client.py", url, *files, token="token")
    by_triton_grpc = ask_through("triton_grpc_client.py", grpc_address, *files, token="token")
    by_kserve_grpc = ask_through("kserve_grpc_client.py", grpc_address, *files, token="token")
    for way in ("1 binary", "8 JSON", "64 binary", "64 JSON"):
        count = int(way.split()[0])
        for found in (by_triton["answers"][way]["logits"], by_kserve["answers"][way]):
            assert np.shape(found) == (count, 9)
            assert np.abs(np.array(found) - expected).max() < 1e-4
    for answers in (by_triton_grpc["answers"], by_kserve_grpc["answers"]):
        for way, answer in answers.items():
            logits = np.array(answer["logits"] if isinstance(answer, dict) else answer)
            assert logits.shape == (int(way.split()[0]), 9)
            assert np.abs(logits - expected).max() < 1e-4
    assert by_triton_grpc["error"].startswith("StatusCode.INVALID_ARGUMENT image_unreadable: image 1: ")
    assert "INVALID_ARGUMENT image_unreadable: image 0: " in by_kserve_grpc["error"]
    assert by_triton["error"].startswith("415 image_unreadable: image 1: ")
    assert "image_unreadable" in by_kserve["error"]
    assert np.abs(np.array(by_kserve["predictions"]) - expected).max() < 1e-4
