"""Nothing leaves this machine, and a visitor's image does not stay on it."""

import subprocess
import time
from pathlib import Path

from playwright.sync_api import Browser

from serving.supervisor import ROOT, TILE
from tests.demo.conftest import KEEP_SECONDS, LOOPBACK, PYTHON, Demo, Visit, choose

GENERATED = {path.read_bytes() for path in (ROOT / "demo" / "tiles").glob("*.png")}


def visitors_files(demo: Demo) -> list[Path]:
    """What the page's process has written besides copies of its own examples."""
    files = (path for path in demo.folder.rglob("*") if path.is_file())
    return [path for path in files if path.read_bytes() not in GENERATED]


def test_uploads_are_deleted_and_answers_never_written(demo: Demo, visit: Visit) -> None:
    page = visit("?tab=explain")
    choose(page, "secret.png", TILE.read_bytes())
    page.locator("#maps .card").wait_for()
    assert {path.read_bytes() for path in visitors_files(demo)} <= {TILE.read_bytes()}
    deadline = time.monotonic() + 3 * KEEP_SECONDS
    while visitors_files(demo) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert visitors_files(demo) == []
    page.get_by_label("LayerCAM").check()
    page.locator("#maps .card[data-method=layercam]").wait_for()


def test_the_pages_process_asks_loopback_alone(demo: Demo, visit: Visit) -> None:
    visit()
    assert demo.hosts()
    assert demo.hosts() <= LOOPBACK


def test_the_browser_is_told_to_ask_no_other_host(demo: Demo, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(demo.url)
    blocked = page.evaluate(
        """() => new Promise((resolve) => {
            document.addEventListener("securitypolicyviolation", (event) => resolve(event.blockedURI));
            const image = document.createElement("img");
            image.src = "http://127.0.0.2:9/beacon.png";
            document.body.append(image);
        })"""
    )
    assert blocked.startswith("http://127.0.0.2:9")
    page.context.close()


def test_a_taken_port_is_named(demo: Demo) -> None:
    port = demo.url.rsplit(":", 1)[1]
    command = [str(PYTHON), "-m", "demo", "--port", port]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    assert f"127.0.0.1:{port} cannot be used" in result.stderr
