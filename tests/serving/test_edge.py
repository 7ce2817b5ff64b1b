import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
import requests
from aiohttp import web

from serving.edge import make_edge
from serving.server import ROOT, TILE, TorchServe
from tests.conftest import free_addresses


@contextmanager
def running(application: web.Application) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(application)
    loop.run_until_complete(runner.setup())
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    loop.run_until_complete(web.SockSite(runner, listener).start())
    thread = Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.fixture
def orphan() -> Iterator[str]:
    """An edge whose TorchServe is not running."""
    with running(make_edge(free_addresses()["inference_address"], max_request_size=1000)) as url:
        yield url


@pytest.fixture
def guarded(server: TorchServe) -> Iterator[str]:
    """An edge with a token, before the running TorchServe."""
    with running(make_edge(server.inference_url, 100_000, server.metrics_url, token="secret")) as url:
        yield url


def test_a_missing_torchserve_is_unavailable_with_a_time_to_retry(orphan: str) -> None:
    response = requests.post(f"{orphan}/predictions/pathmnist", data=b"x", timeout=10)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert response.headers["Retry-After"] == "1"


def test_the_size_limit_is_the_configured_one(orphan: str) -> None:
    assert requests.post(f"{orphan}/predictions/pathmnist", data=b"x" * 1000, timeout=10).status_code == 503
    assert requests.post(f"{orphan}/predictions/pathmnist", data=b"x" * 1001, timeout=10).status_code == 413


@pytest.mark.parametrize(
    "borne", [None, "Bearer wrong", "secret", "bearer secret", "Bearer secret\u00e9", b"Bearer secret\xe9"]
)
@pytest.mark.parametrize("path", ["predictions/pathmnist", "explanations/pathmnist", "metrics", "nowhere"])
def test_without_the_token_nothing_is_told(guarded: str, path: str, borne: str | bytes | None) -> None:
    value = borne.encode() if isinstance(borne, str) else borne
    headers = {"Authorization": value} if value else {}
    method = requests.get if path == "metrics" else requests.post
    response = method(f"{guarded}/{path}", headers=headers, timeout=10)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert "secret" not in response.text


def test_the_token_opens_everything_and_health_is_open(guarded: str) -> None:
    headers = {"Authorization": "Bearer secret"}
    for verb in ("predictions", "explanations"):
        answer = requests.post(f"{guarded}/{verb}/pathmnist", data=TILE.read_bytes(), headers=headers, timeout=60)
        assert answer.status_code == 200
    assert "predicted_class_total" in requests.get(f"{guarded}/metrics", headers=headers, timeout=10).text
    assert requests.get(f"{guarded}/ping", timeout=10).json()["status"] == "Healthy"


@pytest.mark.parametrize("address", ["http://0.0.0.0:0", "http://192.0.2.1:0", "http://edge.example:0"])
def test_no_one_else_is_served_without_a_token(address: str) -> None:
    command = [sys.executable, "-m", "serving.edge", "--listen", address, "--max-request-size", "1"]
    command += ["--upstream", "http://127.0.0.1:1", "--metrics", "http://127.0.0.1:1"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert finished.returncode == 2
    assert "set PATHMNIST_TOKEN" in finished.stderr
