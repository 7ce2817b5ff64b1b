"""Faults on a real server: which requests fail, what their clients get, and the time to recovery.

docs/faults.md lists the expectations and measured times. There are no stubs: workers are killed, disks are full.
"""

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handler.api.options import OPTIONS
from serving.supervisor import TorchServe
from tests.conftest import Pixels
from tests.serving.conftest import BATCH, QUEUE, READ_TIMEOUT, RESPONSE_TIMEOUT
from tests.support.images import Encode, damaged
from tests.support.processes import worker
from tests.support.waiting import wait_for

# More gradients than a worker can compute within its timeout, on any machine.
ENDLESS: dict[str, Any] = {
    "method": "integrated_gradients,smoothgrad,occlusion",
    "n_steps": 256,
    "n_samples": 128,
    "window": 16,
}
RECOVERY = 120
CONTENT_TYPES = (
    "application/json",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "multipart/form-data; boundary=x",
    "text/plain",
    "image/png",
    "",
)


@dataclass
class Seen:
    """One request under load: start, end and response."""

    began: float
    ended: float
    response: requests.Response


@dataclass
class Client:
    """A client of one server that knows the correct results."""

    url: str
    tiles: list[bytes]
    logits: list[list[float]] = field(default_factory=list)

    def post(
        self, verb: str = "predictions", tile: int = 0, headers: dict[str, str] | None = None, **options: Any
    ) -> requests.Response:
        url = f"{self.url}/{verb}/pathmnist"
        return requests.post(url, data=self.tiles[tile], params=options, headers=headers, timeout=RECOVERY)

    def is_right(self, response: requests.Response, tile: int = 0) -> bool:
        expected = np.array(self.logits[tile])
        return bool(np.abs(response.json()["logits"] - expected).max() < 1e-4 * np.abs(expected).max())

    def assert_serves(self) -> None:
        """Assert that both pools respond and predictions are correct."""
        assert self.is_right(self.post())
        assert self.post("explanations", method="gradcam").status_code == 200

    def recovers(self, verb: str = "predictions", **options: Any) -> float:
        """Seconds until a request succeeds. Fails after `RECOVERY`."""
        began = time.monotonic()
        while self.post(verb, **options).status_code != 200:
            assert time.monotonic() - began < RECOVERY
            time.sleep(0.1)
        return time.monotonic() - began

    @contextmanager
    def load(self, users: int) -> Iterator[list[Seen]]:
        """Run this many clients, each sending one request after another, until the context exits."""
        seen: list[Seen] = []
        done = threading.Event()

        def ask(user: int) -> None:
            while not done.is_set():
                began = time.monotonic()
                response = self.post(tile=user % len(self.tiles))
                seen.append(Seen(began, time.monotonic(), response))
                if response.status_code == 200:
                    assert self.is_right(response, user % len(self.tiles)), "a wrong answer"

        with ThreadPoolExecutor(users) as pool:
            running = [pool.submit(ask, user) for user in range(users)]
            try:
                yield seen
            finally:
                done.set()
        for user in running:
            user.result()


@pytest.fixture(scope="module")
def client(short_tempered: TorchServe, tiles: Pixels, encode: Encode) -> Client:
    client = Client(short_tempered.url, [encode(tile) for tile in tiles[:4]])
    client.logits = [client.post(tile=index).json()["logits"] for index in range(len(client.tiles))]
    return client


def error_code(response: requests.Response) -> str:
    """The code of an error, after a check of its form."""
    assert response.headers["Content-Type"].startswith("application/json")
    error = response.json()["error"]
    assert set(error) == {"code", "message", "field"}
    return str(error["code"])


def test_a_killed_worker_costs_its_batch_and_nothing_else(client: Client, short_tempered: TorchServe) -> None:
    with client.load(users=4) as seen:
        wait_for(lambda: len(seen) >= 8)
        worker(short_tempered.management_url, "pathmnist").kill()
        killed = time.monotonic()
        wait_for(lambda: sum(item.began > killed and item.response.status_code == 200 for item in seen) >= 4, RECOVERY)
    failed = [item.response for item in seen if item.response.status_code != 200]
    assert len(failed) <= BATCH
    for response in failed:
        assert response.status_code >= 500
        assert error_code(response) in ("out_of_memory", "internal_error")
    first = min(item.ended for item in seen if item.ended > killed and item.response.status_code == 200)
    print(f"recovered in {first - killed:.1f} s")
    client.assert_serves()


def test_a_full_queue_refuses_at_once_and_answers_the_rest(client: Client) -> None:
    crowd = 6 * QUEUE
    with ThreadPoolExecutor(crowd) as pool:
        answers = list(pool.map(lambda index: (index % 4, client.post(tile=index % 4)), range(crowd)))
    refused = [response for _, response in answers if response.status_code != 200]
    assert 0 < len(refused) < crowd - QUEUE
    for response in refused:
        assert (response.status_code, error_code(response)) == (503, "overloaded")
        assert response.headers["Retry-After"] == "1"
    for tile, response in answers:
        assert response.status_code == 503 or client.is_right(response, tile)
    client.assert_serves()


def test_past_its_time_an_explanation_fails_and_predictions_go_on(client: Client) -> None:
    with client.load(users=1) as seen:
        began = time.monotonic()
        response = client.post("explanations", **ENDLESS)
        assert RESPONSE_TIMEOUT - 1 < time.monotonic() - began < RESPONSE_TIMEOUT + 10
        assert (response.status_code, error_code(response)) == (500, "internal_error")
        recovery = client.recovers("explanations", method="gradcam")
        print(f"recovered in {recovery:.1f} s")
    assert {item.response.status_code for item in seen} == {200}


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def head(length: int) -> bytes:
    return f"POST /predictions/pathmnist HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n".encode()


def test_clients_that_hang_up_disturb_no_one(client: Client, short_tempered: TorchServe) -> None:
    tile = client.tiles[0]
    logged = len(short_tempered.log.read_text())
    with client.load(users=1) as seen:
        # A complete request keeps its place in the queue, so the queue must have room for more than these.
        for sent in [tile[: len(tile) // 2]] * 10 + [tile] * (QUEUE // 2):
            with connect(client.url) as abandoned:
                abandoned.sendall(head(len(tile)) + sent)
        wait_for(lambda: len(seen) > 5)
    assert {item.response.status_code for item in seen} == {200}
    assert "Traceback" not in short_tempered.log.read_text()[logged:]
    client.assert_serves()


def test_a_slow_client_is_ended_and_others_are_served(client: Client) -> None:
    with connect(client.url) as slow:
        slow.sendall(head(1000))
        began = time.monotonic()
        served = 0
        slow.settimeout(0.2)
        answer = b""
        while not answer:
            assert time.monotonic() - began < READ_TIMEOUT + 20
            slow.sendall(b"x")
            served += client.is_right(client.post())
            try:
                answer = slow.recv(4096)
            except TimeoutError:
                continue
        assert time.monotonic() - began > READ_TIMEOUT - 1
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"] == "request_timeout"
    assert served > 0


def test_a_full_disk_costs_the_cache_and_no_answer(client: Client, short_tempered: TorchServe) -> None:
    cache = short_tempered.log.parent / "tmp" / "explanations"
    if not cache.is_mount():
        pytest.skip("mounting a small disk is not allowed here")
    questions: list[dict[str, Any]] = [{"method": "saliency", "target": target} for target in range(6)]
    for number, options in enumerate(questions * 2):
        response = client.post("explanations", headers={"X-Request-Id": f"disk-{number}"}, **options)
        assert response.status_code == 200, response.text
    again = [client.post("explanations", **options).json()["explanations"][0]["cached"] for options in questions]
    assert not all(again)
    assert psutil.disk_usage(str(cache)).percent > 50
    assert re.search(r"\[disk-\d+\] the cache could not be written", short_tempered.log.read_text())
    client.assert_serves()


@pytest.fixture(scope="module")
def bodies(tiles: Pixels, encode: Encode) -> list[bytes]:
    formats = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
    return [damaged(encode(tiles[index % 9], formats[index % 5]), index) for index in range(150)]


def assert_refused_or_answered(response: requests.Response) -> None:
    """A damaged file may still be an image; anything else is a 4xx in the project's error format."""
    if response.status_code != 200:
        assert 400 <= response.status_code < 500, response.text[:300]
        assert error_code(response)


def test_damaged_files_are_never_a_fault_of_the_server(client: Client, bodies: list[bytes]) -> None:
    def send(body: bytes) -> requests.Response:
        return requests.post(f"{client.url}/predictions/pathmnist", data=body, timeout=60)

    with ThreadPoolExecutor(4) as pool:
        for response in pool.map(send, bodies):
            assert_refused_or_answered(response)
    client.assert_serves()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(
    options=st.dictionaries(st.sampled_from(sorted(OPTIONS)) | st.text(max_size=8), st.text(max_size=20), max_size=3),
    body=st.binary(max_size=60) | st.text(max_size=60).map(str.encode),
    content_type=st.sampled_from(CONTENT_TYPES),
    verb=st.sampled_from(["predictions", "explanations"]),
)
def test_malformed_requests_are_never_a_fault_of_the_server(
    client: Client, options: dict[str, str], body: bytes, content_type: str, verb: str
) -> None:
    response = requests.post(
        f"{client.url}/{verb}/pathmnist", data=body, params=options, headers={"Content-Type": content_type}, timeout=60
    )
    assert_refused_or_answered(response)


def test_after_all_that_the_server_is_ready(client: Client) -> None:
    response = requests.get(f"{client.url}/ready", timeout=30)
    assert (response.status_code, response.json()) == (200, {"status": "ready"})
    client.assert_serves()
