"""The built page, on a plain file server below the root, in real Chromium whose every request is recorded."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright

from export.chromium import CHROMIUM
from export.npm import MissingRuntimeError
from export.web.build import build

FOLDER = "some/where"
PATIENCE_MS = 120_000
expect.set_options(timeout=PATIENCE_MS)


class RecordingHandler(SimpleHTTPRequestHandler):
    """Files as any server gives them. It is the browser's proxy too, so requests to other hosts arrive here."""

    def __init__(self, requests: list[str], *args: Any, **options: Any) -> None:
        self.requests = requests
        super().__init__(*args, **options)

    def parse_request(self) -> bool:
        parsed = super().parse_request()
        if parsed:
            self.requests.append(f"{self.command} {self.path}")
            self.path = urlsplit(self.path).path if "//" in self.path else self.path
        return parsed

    def do_CONNECT(self) -> None:
        self.send_error(403)

    def log_message(self, *_: Any) -> None:
        pass


@dataclass
class Site:
    """A file server for the page. `requests` has all that reached it: method and address."""

    root: Path
    requests: list[str] = field(default_factory=list)
    server: ThreadingHTTPServer | None = None

    def start(self, port: int = 0) -> None:
        handler = partial(RecordingHandler, self.requests, directory=str(self.root))
        self.server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self.server:
            self.server.shutdown()
            self.server.server_close()
        self.server = None

    @property
    def origin(self) -> str:
        assert self.server
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/{FOLDER}/"


@pytest.fixture(scope="package")
def site_folder(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    try:
        build(model_store, root / FOLDER)
    except MissingRuntimeError as error:
        pytest.skip(str(error))
    return root


@pytest.fixture(scope="package")
def site(site_folder: Path) -> Iterator[Site]:
    running = Site(site_folder)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """It is closed after this folder's tests, because it occupies the thread's event loop."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


def new_visitor(browser: Browser, site: Site, **options: Any) -> BrowserContext:
    """A browser with a storage of its own. Its requests pass through the site's server, whatever their host."""
    size: ViewportSize = {"width": 1440, "height": 900}
    context = browser.new_context(proxy={"server": site.origin}, viewport=size, reduced_motion="reduce", **options)
    context.set_default_timeout(PATIENCE_MS)
    return context


@dataclass
class Visit:
    """A page whose model is loaded. `errors` has what the browser reported."""

    page: Page
    errors: list[str]


@pytest.fixture(scope="package")
def visit(browser: Browser, site: Site) -> Iterator[Visit]:
    context = new_visitor(browser, site)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(site.url)
    wait_until_ready(page)
    yield Visit(page, errors)
    context.close()


def wait_until_ready(page: Page) -> None:
    expect(page.locator("#state[data-state=up]")).to_be_visible()
