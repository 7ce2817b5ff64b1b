"""The API's description in Swagger UI, in a real browser."""

import pytest
import requests
from playwright.sync_api import Browser, Page

from export.contract import openapi
from serving.supervisor import TorchServe
from tests.web.conftest import Gateway, visits_to


@pytest.fixture
def guarded(gateway: Gateway) -> Gateway:
    gateway.token = "secret"
    gateway.start()
    return gateway


def execute(page: Page, operation: str) -> int:
    """The status that "Try it out" shows for an operation without a body."""
    block = page.locator(f"#operations-default-{operation}")
    block.get_by_role("button").first.click()
    block.get_by_role("button", name="Try it out").click()
    block.get_by_role("button", name="Execute").click()
    return int(block.locator(".live-responses-table tbody .response-col_status").first.inner_text().split()[0])


def test_every_operation_is_listed_and_can_be_tried(browser: Browser, guarded: Gateway) -> None:
    """`visits_to` asserts that the page contacts this server only, and that the browser refuses nothing."""
    with visits_to(browser, guarded.url) as visit:
        page = visit("/docs", heading="h1, h2.title")
        listed = set(page.locator(".opblock-summary-path").evaluate_all("all => all.map((item) => item.dataset.path)"))
        assert listed == set(openapi()["paths"])
        assert page.locator(".opblock").count() == sum(
            len(operations.keys() - {"parameters"}) for operations in openapi()["paths"].values()
        )
        assert execute(page, "ping") == 200
        assert execute(page, "listModels") == 401
        page.get_by_role("button", name="Authorize").click()
        page.locator("#auth-bearer-value").fill("secret")
        page.get_by_role("button", name="Apply credentials").click()
        page.get_by_role("button", name="Close").click()
        assert execute(page, "describeModel") == 200


def test_its_policy_allows_this_origin_only(server: TorchServe) -> None:
    policy = requests.get(f"{server.url}/docs", timeout=10).headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy


def test_swagger_ui_is_the_packages_and_needs_no_token(guarded: Gateway) -> None:
    for name in ("swagger-ui.css", "swagger-ui-bundle.js"):
        assert requests.get(f"{guarded.url}/docs/{name}", timeout=10).ok
    assert requests.get(f"{guarded.url}/docs/index.html", timeout=10).status_code == 401
