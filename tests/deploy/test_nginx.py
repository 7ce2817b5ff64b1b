"""nginx with the example configuration in front of the real TorchServe. Skipped if nginx is not installed."""

import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from serving.gateway.settings import ROOT
from serving.ports import free_ports
from serving.supervisor import TILE, TorchServe
from tests.support.shipped import VERSION

PROGRAM = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONFIG = ROOT / "deploy" / "nginx" / "nginx.conf"
TOKEN = {"Authorization": "Bearer secret"}

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="nginx is not installed (apt-get install nginx-light)")


def configured(folder: Path, addresses: dict[str, str]) -> Path:
    """The example configuration with a token and the test's addresses."""
    text = CONFIG.read_text().replace("Bearer TOKEN", "Bearer secret")
    for address, other in addresses.items():
        assert address in text
        text = text.replace(address, other)
    path = folder / "nginx.conf"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def url(server: TorchServe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("nginx")
    (port,) = free_ports(1)
    addresses = {
        "listen 127.0.0.1:8080": f"listen 127.0.0.1:{port}",
        "http://127.0.0.1:8085": server.inference_url,
        "http://127.0.0.1:8082": server.metrics_url,
    }
    config = configured(folder, addresses)
    command = [str(PROGRAM), "-p", str(folder), "-c", str(config), "-e", "stderr", "-g", "daemon off;"]
    with subprocess.Popen(command) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(50):
                try:
                    requests.get(f"{address}/ping", timeout=10)
                    break
                except requests.ConnectionError:
                    time.sleep(0.1)
            yield address
        finally:
            process.terminate()


def test_nginx_accepts_the_example(tmp_path: Path) -> None:
    command = [str(PROGRAM), "-t", "-p", str(tmp_path), "-c", str(CONFIG), "-e", "stderr"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    "path",
    [
        "predictions/pathmnist",
        f"predictions/pathmnist/{VERSION}",
        "predictions/pathmnist?explain=layercam&target=TUM&return=raw",
        "explanations/pathmnist?method=saliency&target=3&return=raw",
        f"explanations/pathmnist/{VERSION}",
    ],
)
def test_answers_are_those_of_the_edge(server: TorchServe, url: str, path: str) -> None:
    image = TILE.read_bytes()
    answers = [
        requests.post(f"{address}/{path}", data=image, headers=TOKEN, timeout=60) for address in (server.url, url)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    edge, nginx = (answer.json() for answer in answers)
    assert np.allclose(edge["logits"], nginx["logits"], atol=1e-3)
    shown = [[(item["method"], item["target"]) for item in answer.get("explanations", [])] for answer in (edge, nginx)]
    assert shown[0] == shown[1]
    assert "X-Facts" not in answers[1].headers
    assert answers[1].headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("method", "path", "size", "headers", "status", "code"),
    [
        ("POST", "predictions/pathmnist", 1, {}, 401, "unauthorized"),
        ("POST", "explanations/pathmnist", 1, {"Authorization": "Bearer other"}, 401, "unauthorized"),
        ("GET", "predictions/pathmnist", 0, TOKEN, 405, "method_not_allowed"),
        ("POST", "predictions/pathmnist", 16 * 1024 * 1024 + 1, TOKEN, 413, "request_too_large"),
        ("GET", "nowhere", 0, TOKEN, 404, "not_found"),
        ("POST", "predictions/pathmnist?target=1", 1, TOKEN, 400, "option_misplaced"),
    ],
)
def test_errors_have_the_common_form(
    url: str, method: str, path: str, size: int, headers: dict[str, str], status: int, code: str
) -> None:
    answer = requests.request(method, f"{url}/{path}", data=bytes(size), headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Request-Id"]


def test_a_plain_id_is_kept_and_another_is_replaced(url: str) -> None:
    for sent, kept in (("slide-7", True), ("a b", False)):
        headers = {**TOKEN, "X-Request-Id": sent}
        answer = requests.post(f"{url}/predictions/pathmnist", data=TILE.read_bytes(), headers=headers, timeout=60)
        assert (answer.headers["X-Request-Id"] == sent) == kept
        assert kept or uuid.UUID(answer.headers["X-Request-Id"])
