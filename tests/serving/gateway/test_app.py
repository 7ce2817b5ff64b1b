import http.client
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from serving.gateway.app import Edge
from serving.gateway.settings import ROOT, Settings, write_properties
from serving.ports import free_addresses
from serving.supervisor import TILE, TorchServe
from tests.support.edge import running, settings_for


@pytest.fixture
def orphan() -> Iterator[str]:
    """An edge whose TorchServe is not running."""
    with running(Edge(Settings(inference_address=free_addresses()["inference_address"], max_request_size=1000))) as url:
        yield url


@pytest.fixture
def guarded(server: TorchServe) -> Iterator[str]:
    """An edge with a token, before the running TorchServe."""
    with running(Edge(settings_for(server), token="secret")) as url:
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
    assert "pathmnist_predicted_class_total" in requests.get(f"{guarded}/metrics", headers=headers, timeout=10).text
    assert requests.get(f"{guarded}/ping", timeout=10).json()["status"] == "Healthy"


def refusal(tmp_path: Path, **properties: str) -> str:
    """The message of an edge that does not start with these properties."""
    write_properties(properties, tmp_path / "config.properties")
    command = [sys.executable, "-m", "serving.gateway", "--config", str(tmp_path / "config.properties")]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr
    return finished.stderr


@pytest.mark.parametrize(
    "address",
    ["http://0.0.0.0:0", "http://192.0.2.1:0", "http://edge.example:0", "http://[::]:0", "http://[2001:db8::1]:0"],
)
def test_no_one_else_is_served_without_a_token(address: str, tmp_path: Path) -> None:
    assert "set PATHMNIST_TOKEN" in refusal(tmp_path, edge_address=address)


def test_tls_needs_a_certificate(tmp_path: Path) -> None:
    assert "needs a certificate and its key" in refusal(tmp_path, edge_address="https://127.0.0.1:0")


def test_a_client_above_its_rate_is_told_when_to_come_back(server: TorchServe) -> None:
    with running(Edge(settings_for(server, edge_rate_limit=0.1, edge_rate_burst=3))) as url:
        answers = [requests.get(f"{url}/metrics", timeout=10) for _ in range(4)]
        pings = [requests.get(f"{url}/ping", timeout=10) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[3].json()["error"]["code"] == "rate_limited"
    assert 8 <= int(answers[3].headers["Retry-After"]) <= 10
    assert {ping.status_code for ping in pings} == {200}


def test_each_image_of_a_batch_counts_as_a_request(server: TorchServe) -> None:
    files = [("data", TILE.read_bytes())] * 5
    with running(Edge(settings_for(server, edge_rate_limit=0.1, edge_rate_burst=3))) as url:
        batch = requests.post(f"{url}/predictions/pathmnist", files=files, timeout=60)
        next_one = requests.get(f"{url}/metrics", timeout=10)
    assert [len(batch.json()["results"]), next_one.status_code] == [5, 429]
    assert 25 <= int(next_one.headers["Retry-After"]) <= 30


def test_each_image_of_a_batch_has_its_line_in_the_log(server: TorchServe, tmp_path: Path) -> None:
    files = [("data", TILE.read_bytes()), ("data", b"no image"), ("data", TILE.read_bytes())]
    with running(Edge(settings_for(server), request_log=tmp_path / "requests.jsonl")) as url:
        response = requests.post(f"{url}/predictions/pathmnist", files=files, timeout=60)
    lines = [json.loads(line) for line in (tmp_path / "requests.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == [200, 415, 200]
    assert {line["request_id"] for line in lines} == {response.headers["X-Request-Id"]}
    assert [line["outcome"] for line in lines] == ["ok", "image_unreadable", "ok"]


def test_guessing_tokens_is_limited_too() -> None:
    with running(Edge(Settings(edge_rate_limit=0.1, edge_rate_burst=2), token="secret")) as url:
        statuses = [requests.post(f"{url}/predictions/pathmnist", timeout=10).status_code for _ in range(3)]
    assert statuses == [401, 401, 429]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("slide-7.tile_12", True),
        (None, False),
        ("", False),
        ("x" * 65, False),
        ("a b", False),
        ("forged\tline", False),
        (b"\xe9", False),
    ],
)
@pytest.mark.parametrize("path", ["/predictions/pathmnist", "/predictions/other", "/nowhere"])
def test_every_answer_has_a_request_id(server: TorchServe, path: str, sent: str | bytes | None, kept: bool) -> None:
    headers = {} if sent is None else {"X-Request-Id": sent}
    response = requests.post(f"{server.url}{path}", data=TILE.read_bytes(), headers=headers, timeout=60)
    if kept:
        assert response.headers["X-Request-Id"] == sent
        return
    assert str(uuid.UUID(response.headers["X-Request-Id"])) == response.headers["X-Request-Id"]


@pytest.mark.parametrize("name", ["Content-Type", "X-Request-Id", "Authorization", "Cookie"])
@pytest.mark.parametrize("value", [b"\xe9", b"\xf0\x9f", b"a\tb", b"x" * 5000, b";" * 50, b"text/plain; charset=\xff"])
def test_no_header_is_a_fault_of_the_server(server: TorchServe, name: str, value: bytes) -> None:
    response = requests.post(
        f"{server.url}/predictions/pathmnist", data=TILE.read_bytes(), headers={name: value}, timeout=60
    )
    assert response.status_code in (200, 400), response.text
    assert "error" in response.json() or response.json()["prediction"]


@pytest.mark.parametrize(
    "query",
    ["%", "%zz", "a=%zz", "%ff%fe=1", "=&&=", "a=1&a=2", "target=%00", "\xff\xfe", "a" * 5000, "?#", "a;b", "%2f%2e"],
)
@pytest.mark.parametrize(
    "path", ["predictions/pathmnist", "explanations/pathmnist", "predictions/path%2fmnist", "%ff/x"]
)
def test_no_address_is_a_fault_of_the_server(server: TorchServe, path: str, query: str) -> None:
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)
    connection.putrequest("POST", f"/{path}?PLACE", skip_host=True)
    # http.client refuses what a hostile client sends.
    connection._buffer[0] = f"POST /{path}?{query} HTTP/1.1".encode("latin-1")  # type: ignore[attr-defined]
    connection.putheader("Content-Length", "1")
    connection.endheaders(b"x")
    response = connection.getresponse()
    content = response.read()
    assert 200 <= response.status < 500, content[:200]
