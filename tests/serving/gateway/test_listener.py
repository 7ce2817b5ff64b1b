"""Requests that the HTTP library or the routes refuse, as raw bytes on a socket: JSON with an id, like every error."""

import json
import socket
import uuid
from collections.abc import Iterator
from http.client import HTTPResponse
from urllib.parse import urlsplit

import pytest

from serving.gateway.app import Edge
from serving.gateway.settings import Settings
from serving.ports import free_addresses
from tests.support.edge import running

POST = b"POST /predictions/pathmnist HTTP/1.1\r\n"
HOST = b"Host: test\r\n"
ONE = b"Content-Length: 1\r\n"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An edge whose TorchServe does not run: nothing here gets that far."""
    with running(Edge(Settings(inference_address=free_addresses()["inference_address"]))) as address:
        yield address


def send(url: str, request: bytes) -> tuple[HTTPResponse, bytes]:
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(request)
        response = HTTPResponse(connection)
        response.begin()
        return response, response.read()


REFUSED = {
    "no request line": (b"hello\r\n\r\n", 400),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n", 400),
    "a method that does not exist": (b"F{}O /predictions/pathmnist HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "another version of HTTP": (b"POST / HTTP/7.3\r\n" + HOST + b"\r\n", 400),
    "two lengths": (POST + HOST + ONE + b"Content-Length: 2\r\n\r\nxx", 400),
    "a length that is no number": (POST + HOST + b"Content-Length: -1\r\n\r\n", 400),
    "length and chunks": (POST + HOST + ONE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "an unknown transfer encoding": (POST + HOST + b"Transfer-Encoding: zip\r\n\r\nx", 400),
    "a malformed chunk": (POST + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n", 400),
    "a header without a colon": (POST + HOST + b"nonsense\r\n\r\n", 400),
    "a folded header": (POST + HOST + b"X: a\r\n b\r\n" + ONE + b"\r\nx", 400),
    "a long header": (POST + HOST + b"X: " + b"y" * 20_000 + b"\r\n\r\n", 400),
    "many headers": (POST + HOST + b"X: y\r\n" * 5000 + ONE + b"\r\nx", 400),
    "a long query": (b"POST /predictions/pathmnist?" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a query longer than TorchServe takes": (
        b"POST /predictions/pathmnist?a=" + b"b" * 5000 + b" HTTP/1.1\r\n" + HOST + ONE + b"\r\nx",
        400,
    ),
    "an expectation that nobody meets": (POST + HOST + b"Expect: miracles\r\n" + ONE + b"\r\nx", 417),
    "a false gzip body": (POST + HOST + b"Content-Encoding: gzip\r\n" + ONE + b"\r\nx", 400),
    "a zstd body": (POST + HOST + b"Content-Encoding: zstd\r\n" + ONE + b"\r\nx", 415),
    "a brotli body": (POST + HOST + b"Content-Encoding: br\r\n" + ONE + b"\r\nx", 415),
    "the server itself": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "an address that does not exist": (b"GET /nowhere HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "a model's name with a slash": (b"POST /predictions/a%2fb HTTP/1.1\r\n" + HOST + ONE + b"\r\nx", 404),
    "a name that climbs": (b"POST /predictions/..%2f..%2fx HTTP/1.1\r\n" + HOST + ONE + b"\r\nx", 404),
    "a malformed form": (POST + HOST + b"Content-Type: multipart/form-data; boundary=x\r\n" + ONE + b"\r\nx", 400),
}


@pytest.mark.parametrize("case", REFUSED)
def test_every_refusal_is_json_with_an_id(case: str, url: str) -> None:
    request, status = REFUSED[case]
    response, body = send(url, request)
    assert response.status == status, body
    assert response.headers["Content-Type"].startswith("application/json")
    assert uuid.UUID(response.headers["X-Request-Id"])
    error = json.loads(body)["error"]
    assert set(error) == {"code", "message", "field"}
    assert error["code"]
    assert "\n" not in error["message"]


def test_two_hosts_are_refused_or_served_but_never_a_fault(url: str) -> None:
    response, body = send(url, POST + HOST + HOST + ONE + b"\r\nx")
    assert response.status in (400, 503)
    assert json.loads(body)["error"]["code"] in ("request_invalid", "unavailable")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predictions/pathmnist", {"POST", "PUT"}),
        ("DELETE", "/explanations/pathmnist/1.0", {"POST", "PUT"}),
        ("OPTIONS", "/predictions/pathmnist", {"POST", "PUT"}),
        ("POST", "/ping", {"GET", "HEAD"}),
        ("PUT", "/metrics", {"GET", "HEAD"}),
    ],
)
def test_a_method_that_is_not_allowed_is_told_which_are(method: str, path: str, allowed: set[str], url: str) -> None:
    response, body = send(url, f"{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n".encode())
    assert (response.status, json.loads(body)["error"]["code"]) == (405, "method_not_allowed")
    assert set(response.headers["Allow"].replace(" ", "").split(",")) == allowed


def test_a_refused_request_keeps_its_id(url: str) -> None:
    response, _ = send(url, POST + HOST + b"Expect: miracles\r\nX-Request-Id: slide-7\r\n" + ONE + b"\r\nx")
    assert response.headers["X-Request-Id"] == "slide-7"


def test_curl_may_wait_before_it_sends_its_body(url: str) -> None:
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(POST + HOST + b"Expect: 100-continue\r\n" + ONE + b"\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(b"x")
        assert connection.recv(1000).startswith(b"HTTP/1.1 503")
