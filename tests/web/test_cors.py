"""Pages of other origins call the server from a real browser, which sends a preflight first."""

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Browser

from serving.gateway.settings import read_properties, write_properties
from serving.supervisor import TILE
from tests.web.conftest import Gateway

# The headers and the type of the body need a preflight.
CALL = """async ([url, tile]) => {
    const type = "application/octet-stream";
    const headers = { Authorization: "Bearer secret", "X-Request-Id": "cors-1", "Content-Type": type };
    const body = Uint8Array.from(atob(tile), (character) => character.charCodeAt(0));
    try {
        const response = await fetch(`${url}/predictions/pathmnist`, { method: "POST", headers, body });
        return [response.status, response.headers.get("X-Request-Id"), (await response.json()).prediction.code];
    } catch (error) {
        return [error.name];
    }
}"""


class EmptyPage(BaseHTTPRequestHandler):
    """Another site."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def sites() -> Iterator[tuple[str, str]]:
    """The origins of two other sites."""
    with ExitStack() as stack:
        servers = [stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage)) for _ in range(2)]
        for server in servers:
            Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
        yield f"http://127.0.0.1:{servers[0].server_port}", f"http://127.0.0.1:{servers[1].server_port}"


def test_only_a_page_of_an_allowed_origin_may_call(browser: Browser, gateway: Gateway, sites: tuple[str, str]) -> None:
    friend, stranger = sites
    write_properties({**read_properties(gateway.config), "cors_allowed_origin": friend}, gateway.config)
    gateway.token = "secret"
    gateway.start()
    arguments = [gateway.url, base64.b64encode(TILE.read_bytes()).decode()]

    def call(origin: str) -> list[Any]:
        context = browser.new_context()
        page = context.new_page()
        page.goto(origin)
        found: list[Any] = page.evaluate(CALL, arguments)
        context.close()
        return found

    assert call(friend) == [200, "cors-1", "TUM"]
    assert call(stranger) == ["TypeError"]
