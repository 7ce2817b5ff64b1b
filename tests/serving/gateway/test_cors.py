"""A web page of another origin calls the edge as a browser does."""

import pytest
import requests

from serving.gateway.app import Edge
from serving.gateway.settings import Settings
from tests.support.edge import running

PAGE, STRANGER = "https://page.example", "https://stranger.example"
NOBODY = "http://127.0.0.1:1"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


def settings(*origins: str) -> Settings:
    return Settings(inference_address=NOBODY, cors_allowed_origin=origins)


def allowed(response: requests.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("Access-Control-")}


@pytest.mark.parametrize("origins", [(PAGE,), ("https://other.example", PAGE), ("*",)])
def test_an_allowed_page_may_ask_and_read_every_answer(origins: tuple[str, ...]) -> None:
    with running(Edge(settings(*origins), token="secret")) as url:
        preflight = requests.options(f"{url}/predictions/pathmnist", headers={"Origin": PAGE, **PREFLIGHT}, timeout=10)
        answer = requests.post(f"{url}/predictions/pathmnist", headers={"Origin": PAGE}, timeout=10)
    # A preflight carries no token.
    assert preflight.status_code == 204
    assert not preflight.content
    assert preflight.headers["Access-Control-Allow-Methods"] == "GET, POST, PUT"
    assert preflight.headers["Access-Control-Allow-Headers"] == "Authorization, Content-Type, X-Request-Id"
    assert answer.status_code == 401
    for response in (preflight, answer):
        assert response.headers["Access-Control-Allow-Origin"] == ("*" if origins == ("*",) else PAGE)
        assert "X-Request-Id" in response.headers["Access-Control-Expose-Headers"]
        assert response.headers.get("Vary") == (None if origins == ("*",) else "Origin")


def test_another_page_may_not() -> None:
    with running(Edge(settings(PAGE))) as url:
        headers = {"Origin": STRANGER}
        preflight = requests.options(f"{url}/predictions/pathmnist", headers={**headers, **PREFLIGHT}, timeout=10)
        answer = requests.post(f"{url}/predictions/pathmnist", headers=headers, timeout=10)
    assert (preflight.status_code, preflight.json()["error"]["code"]) == (403, "forbidden")
    assert not allowed(preflight)
    assert not allowed(answer)


def test_by_default_no_page_may() -> None:
    with running(Edge(settings())) as url:
        headers = {"Origin": PAGE}
        preflight = requests.options(f"{url}/predictions/pathmnist", headers={**headers, **PREFLIGHT}, timeout=10)
        answer = requests.post(f"{url}/predictions/pathmnist", headers=headers, timeout=10)
    assert preflight.status_code == 405
    assert not allowed(preflight)
    assert not allowed(answer)
