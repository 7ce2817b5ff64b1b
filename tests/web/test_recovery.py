"""A server that restarts, is busy, or requires a token."""

from playwright.sync_api import Browser, Route, expect

from serving.supervisor import TILE
from tests.web.conftest import Gateway, choose, visits_to, wait_for_map


def test_the_page_outlives_its_server(browser: Browser, gateway: Gateway) -> None:
    gateway.start()
    with visits_to(browser, gateway.url) as visit:
        page = visit()
        expect(page.locator("#health")).to_have_text("Ready")
        gateway.stop()
        choose(page, TILE)
        expect(page.locator("#message")).to_contain_text("Your tile is kept")
        expect(page.locator("#health")).to_have_text("Not reachable")
        gateway.start()
        # The page recovers without user action.
        wait_for_map(page)
        expect(page.locator("#health")).to_have_text("Ready")
        expect(page.locator("#message")).to_be_hidden()


def test_the_token_is_asked_once_and_kept_for_the_tab(browser: Browser, gateway: Gateway) -> None:
    gateway.token = "secret"
    gateway.start()
    with visits_to(browser, gateway.url) as visit:
        page = visit()
        expect(page.locator(".figures dt").first).to_be_visible()
        choose(page, TILE)
        for attempt in ("wrong", "secret"):
            page.get_by_label("Token", exact=True).fill(attempt)
            page.get_by_role("button", name="Continue").click()
        wait_for_map(page)
        page.get_by_role("button", name="Occlusion").click()
        wait_for_map(page, "occlusion")
        page.reload()
        wait_for_map(page)
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert "secret" not in page.content()
        # A new tab counts as a new visitor.
        other = page.context.new_page()
        other.goto(gateway.url)
        assert other.evaluate("sessionStorage.getItem('token')") is None


def test_a_busy_server_is_asked_again(browser: Browser, gateway: Gateway) -> None:
    gateway.start()
    refusals = iter([True, True, False])
    with visits_to(browser, gateway.url) as visit:
        page = visit()

        def refuse(route: Route) -> None:
            body = '{"error": {"code": "overloaded", "message": "The queue is full.", "field": null}}'
            if next(refusals):
                route.fulfill(status=503, headers={"Retry-After": "0"}, body=body, content_type="application/json")
            else:
                route.continue_()

        page.route("**/predictions/**", refuse)
        choose(page, TILE)
        wait_for_map(page)
