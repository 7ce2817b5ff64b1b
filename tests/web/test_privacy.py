"""The page contacts no other host, the server stores no image, and the page is small."""

import re

import requests
from playwright.sync_api import expect

from serving.supervisor import ROOT, TILE, TorchServe
from tests.web.conftest import SCREENS, Visits, choose, wait_for_map

# Bytes of what the first screen loads, and of all of the page's own files.
FIRST, ALL = 150_000, 200_000


def test_no_file_is_written_by_an_upload(visit: Visits, server: TorchServe) -> None:
    folder = server.log.parent
    before = {path for path in folder.rglob("*") if path.is_file()}
    page = visit()
    choose(page, TILE)
    wait_for_map(page)
    page.get_by_role("button", name="Occlusion").click()
    wait_for_map(page, "occlusion")
    part = TILE.read_bytes()[200:264]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if part in path.read_bytes()]
    # The cache stores only maps that are slower than a prediction, by digest.
    assert all("explanations" in path.parts for path in set(files) - before)


def test_the_policy_allows_this_origin_and_nothing_unsafe(server: TorchServe) -> None:
    for path in SCREENS:
        policy = requests.get(f"{server.url}{path}", timeout=10).headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert "*" not in policy


def test_the_browser_refuses_other_hosts_and_inline_scripts(visit: Visits) -> None:
    page = visit()
    blocked = page.evaluate(
        """() => new Promise((resolve) => {
            document.addEventListener("securitypolicyviolation", (event) => resolve(event.blockedURI));
            const image = document.createElement("img");
            image.src = "http://127.0.0.2:9/beacon.png";
            document.body.append(image);
        })"""
    )
    assert blocked.startswith("http://127.0.0.2:9")
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            try { script.textContent = "window.wasRun = true"; document.body.append(script); } catch {}
        }"""
    )
    assert page.evaluate("window.wasRun") is None
    # This test asks for both.
    visit.errors.clear()
    visit.hosts.clear()


def test_the_page_has_no_inline_style_or_script_and_names_no_host() -> None:
    html = (ROOT / "web" / "index.html").read_text()
    assert not re.search(r"<style|style=|<script(?![^>]*src=)|\son\w+=", html)
    for path in (ROOT / "web").rglob("*"):
        if path.suffix in (".js", ".css", ".html", ".svg"):
            hosts = set(re.findall(r"https?://([\w.-]+)", path.read_text()))
            assert hosts <= {"doi.org", "www.w3.org"}, path


def test_the_page_is_small(visit: Visits) -> None:
    files = [path for path in (ROOT / "web").rglob("*") if path.suffix in (".js", ".css", ".html", ".json", ".svg")]
    assert sum(path.stat().st_size for path in files) < ALL
    page = visit()
    expect(page.locator(".figures dt").first).to_be_visible()
    loaded = [item for item in visit.responses if not item.headers.get("content-type", "").startswith("image/")]
    assert 20_000 < sum(len(item.body()) for item in loaded) < FIRST


def test_visitors_are_shown_no_internal_address(visit: Visits, server: TorchServe) -> None:
    page = visit()
    choose(page, TILE)
    wait_for_map(page)
    for path in SCREENS:
        page.goto(visit.url + path)
        expect(page.locator("main h1").first).to_be_visible()
        text = page.locator("body").inner_text()
        assert "127.0.0.1" not in text
        assert server.inference_url.rsplit(":", 1)[1] not in text
