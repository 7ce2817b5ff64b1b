"""The page in a real browser, served by the real server."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Response, expect, sync_playwright
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from serving.gateway.settings import write_properties
from serving.ports import free_addresses
from serving.supervisor import ROOT, TorchServe

EXAMPLES = ROOT / "web" / "examples"
SCREENS = ("/", "/compare", "/model", "/tissues", "/server")
# On a busy machine everything takes its time.
expect.set_options(timeout=30_000)
PATIENCE_MS = 60_000


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Headless Chromium; it ends with this folder's tests, because it holds the thread's event loop."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    with sync_playwright() as playwright:
        # A root user, as in containers, has no sandbox.
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@dataclass
class Gateway:
    """A gateway of its own in front of the running TorchServe, which a test can stop and start."""

    url: str
    config: Path
    manifest: Path
    token: str = ""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "serving.gateway"]
        command += ["--config", str(self.config), "--manifest", str(self.manifest)]
        self.process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PATHMNIST_TOKEN": self.token})
        patient = requests.Session()
        patient.mount("http://", HTTPAdapter(max_retries=Retry(total=None, connect=20, backoff_factor=0.05)))
        patient.get(f"{self.url}/ping", timeout=30)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
        self.process = None


@pytest.fixture
def gateway(server: TorchServe, model_store: Path, tmp_path: Path) -> Iterator[Gateway]:
    url = free_addresses()["edge_address"]
    addresses = {
        "edge_address": url,
        "inference_address": server.inference_url,
        "metrics_address": server.metrics_url,
    }
    config = tmp_path / "gateway.properties"
    write_properties(addresses, config)
    running = Gateway(url, config, model_store / "manifest.json")
    yield running
    running.stop()


@dataclass
class Visits:
    """Opens the page as new visitors, and notes the hosts that their browsers ask and the errors that they meet."""

    browser: Browser
    url: str
    hosts: set[str | None] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)

    def __call__(
        self, path: str = "/", *, width: int = 1280, height: int = 900, dark: bool = False, url: str = ""
    ) -> Page:
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
            permissions=["clipboard-read", "clipboard-write"],
        )
        self.contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        context.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname))
        context.on("response", lambda response: self.responses.append(response))
        page = context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._read)
        page.goto((url or self.url) + path)
        expect(page.locator("main h1").first).to_be_visible()
        return page

    def _read(self, message: ConsoleMessage) -> None:
        # A refused question is an error of the network, which some tests cause.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.errors.append(message.text)


@contextmanager
def visits_to(browser: Browser, url: str) -> Iterator[Visits]:
    """At the end, no browser may have asked another host, nor met an error of a script or of the content policy."""
    opened = Visits(browser, url)
    yield opened
    for context in opened.contexts:
        context.close()
    # Pictures that the page makes itself have no host.
    assert opened.hosts <= {"127.0.0.1", None, ""}
    assert opened.errors == []


@pytest.fixture
def visit(browser: Browser, server: TorchServe) -> Iterator[Visits]:
    with visits_to(browser, server.url) as opened:
        yield opened


def choose(page: Page, image: bytes | Path, name: str = "tile.png") -> None:
    """Give the page an image file, as its file dialogue would."""
    if isinstance(image, Path):
        page.locator("#file").set_input_files(image)
    else:
        page.locator("#file").set_input_files({"name": name, "mimeType": "", "buffer": image})


def wait_for_map(page: Page, method: str = "gradcam") -> None:
    expect(page.locator(f"canvas[data-map={method}]")).to_be_visible()
