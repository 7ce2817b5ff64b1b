import asyncio
import socket
from collections.abc import Iterator
from threading import Thread

import pytest
import requests
from aiohttp import web

from serving.edge import make_edge
from tests.conftest import free_addresses


@pytest.fixture
def orphan() -> Iterator[str]:
    """An edge whose TorchServe is not running."""
    addresses = free_addresses()
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(make_edge(addresses["inference_address"], max_request_size=1000))
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


def test_a_missing_torchserve_is_unavailable_with_a_time_to_retry(orphan: str) -> None:
    response = requests.post(f"{orphan}/predictions/pathmnist", data=b"x", timeout=10)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert response.headers["Retry-After"] == "1"


def test_the_size_limit_is_the_configured_one(orphan: str) -> None:
    assert requests.post(f"{orphan}/predictions/pathmnist", data=b"x" * 1000, timeout=10).status_code == 503
    assert requests.post(f"{orphan}/predictions/pathmnist", data=b"x" * 1001, timeout=10).status_code == 413
