from collections.abc import Iterator

import pytest
import requests

from serving.gateway.app import Edge
from serving.gateway.pages import REPORTS, SCREENS, WEB
from serving.gateway.settings import Settings
from serving.ports import free_addresses
from tests.support.edge import running

FILES = [path for path in WEB.rglob("*") if path.suffix in (".css", ".js", ".json", ".png", ".svg")]


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """An edge with a token and one request a minute, without a TorchServe."""
    settings = Settings(
        inference_address=free_addresses()["inference_address"], edge_rate_limit=1 / 60, edge_rate_burst=1
    )
    with running(Edge(settings, token="secret")) as url:
        yield url


def test_every_screen_is_the_page(guarded: str) -> None:
    for path in SCREENS:
        answer = requests.get(guarded + path, timeout=10)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert answer.content == (WEB / "index.html").read_bytes()


def test_every_file_and_report_is_served_without_token_and_rate_limit(guarded: str) -> None:
    types = {".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".png": "image/png"}
    expected = {f"/{path.relative_to(WEB).as_posix()}": path for path in FILES}
    expected |= {f"/reports/{path.name}": path for path in REPORTS.glob("*.json")}
    for address, path in expected.items():
        answer = requests.get(guarded + address, timeout=10)
        assert (answer.status_code, answer.content) == (200, path.read_bytes()), address
        assert answer.headers["Content-Type"].startswith(types.get(path.suffix, "image/svg+xml"))
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]


def test_the_api_still_asks_for_the_token(guarded: str) -> None:
    assert requests.post(f"{guarded}/predictions/pathmnist", data=b"x", timeout=10).status_code == 401
    assert requests.get(f"{guarded}/metrics", timeout=10).status_code in (401, 429)


def test_an_unchanged_file_is_not_sent_again(guarded: str) -> None:
    first = requests.get(f"{guarded}/app.js", timeout=10)
    again = requests.get(f"{guarded}/app.js", headers={"If-None-Match": first.headers["ETag"]}, timeout=10)
    assert (again.status_code, again.content) == (304, b"")
    assert requests.get(f"{guarded}/app.js", headers={"If-None-Match": '"other"'}, timeout=10).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/../config.properties", "/%2e%2e/config.properties", "/index.html.bak", "/reports/../../LICENSE", "/web/app.js"],
)
def test_nothing_else_is_served(path: str, guarded: str) -> None:
    session = requests.Session()
    request = requests.Request("GET", guarded).prepare()
    # The path as it is: the library would shorten it.
    request.url = guarded + path
    assert session.send(request, timeout=10).status_code in (401, 404, 429)


def test_pages_are_only_read(guarded: str) -> None:
    assert requests.head(f"{guarded}/", timeout=10).status_code == 200
    assert requests.post(f"{guarded}/", data=b"x", timeout=10).status_code == 405
