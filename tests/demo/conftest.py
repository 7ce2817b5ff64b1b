"""The page in a real browser, against the real server. Nothing in here is simulated."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from serving.gateway.settings import write_properties
from serving.ports import free_addresses
from serving.supervisor import ROOT, TorchServe

PYTHON = ROOT / ".venv-demo" / "bin" / "python"
# Runs the page with every host its process looks up or connects to written into a file.
AUDITED = """
import runpy, sys
log = open(sys.argv.pop(1), "a", buffering=1)
def audit(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        log.write(f"{arguments[1][0]}\\n")
    if event == "socket.getaddrinfo":
        log.write(f"{arguments[0]}\\n")
sys.addaudithook(audit)
runpy.run_module("demo", run_name="__main__", alter_sys=True)
"""
LOOPBACK = {"127.0.0.1", "localhost"}
KEEP_SECONDS = 3
# On a busy machine everything takes its time.
expect.set_options(timeout=30_000)
PATIENCE_MS = 90_000
TABS = ("Classify", "Explain", "Model", "Tissue guide", "Live")


@dataclass(frozen=True)
class Demo:
    """A running page: its address, its process, its temporary folder, and the hosts its process has asked."""

    url: str
    process: subprocess.Popen[str]
    folder: Path
    hosts_log: Path

    def hosts(self) -> set[str]:
        return set(self.hosts_log.read_text().split())


@contextmanager
def running_demo(
    folder: Path, server: str, metrics: str, *arguments: str, sign: signal.Signals = signal.SIGTERM
) -> Iterator[Demo]:
    """The page on a free port, once it says that it can be opened. Told to end, it leaves none of its files."""
    assert PYTHON.is_file(), "the page's packages are missing: make .venv-demo/demo.stamp"
    port = urlsplit(free_addresses()["edge_address"]).port
    temporary = folder / "tmp"
    temporary.mkdir()
    options = ["--server", server, "--metrics", metrics, "--port", str(port), "--keep", str(KEEP_SECONDS), *arguments]
    process = subprocess.Popen(
        [str(PYTHON), "-c", AUDITED, str(folder / "hosts"), *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("page: "), line
        assert list(temporary.iterdir())
        yield Demo(f"http://127.0.0.1:{port}", process, temporary, folder / "hosts")
    finally:
        process.send_signal(sign)
        process.wait(30)
    assert list(temporary.iterdir()) == []


@pytest.fixture(scope="package")
def demo(server: TorchServe, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with running_demo(tmp_path_factory.mktemp("demo"), server.url, server.metrics_url) as running:
        yield running


@dataclass
class Edge:
    """A door of its own in front of the real TorchServe, which a test may shut."""

    url: str
    server: TorchServe
    config: Path
    token: str = ""
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        properties = {"edge_address": self.url, "inference_address": self.server.inference_url}
        write_properties({**properties, "metrics_address": self.server.metrics_url}, self.config)
        command = [sys.executable, "-m", "serving.gateway", "--config", str(self.config)]
        self.process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PATHMNIST_TOKEN": self.token}, text=True)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
        self.process = None


@pytest.fixture
def edge(server: TorchServe, tmp_path: Path) -> Iterator[Edge]:
    door = Edge(free_addresses()["edge_address"], server, tmp_path / "config.properties")
    yield door
    door.stop()


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


Visit = Callable[..., Page]


@contextmanager
def visits(browser: Browser, demo: Demo) -> Iterator[Visit]:
    """Opens the page as a new visitor, as often as it is called. At the end, no visitor's browser may have asked
    another host than this one, nor met an error in a script."""
    contexts: list[BrowserContext] = []
    asked: set[str | None] = set()
    errors: list[str] = []

    def note(request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob"):
            asked.add(address.hostname)

    def visit(query: str = "", url: str = demo.url) -> Page:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        context.on("request", note)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{url}/{query}")
        page.get_by_text("Model server", exact=False).first.wait_for()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert asked == {"127.0.0.1"}
    assert errors == []


@pytest.fixture
def visit(browser: Browser, demo: Demo) -> Iterator[Visit]:
    with visits(browser, demo) as opened:
        yield opened


def choose(page: Page, name: str, image: bytes) -> None:
    """Give the page an image file, as its file dialogue would."""
    kind = "image/" + name.rsplit(".", 1)[1]
    page.locator("#tile input[type=file]").set_input_files({"name": name, "mimeType": kind, "buffer": image})


def open_tab(page: Page, name: str) -> None:
    """Choose a tab; on narrow screens those that do not fit are in a menu."""
    tab = page.locator("#tabs").get_by_role("tab", name=name, exact=True)
    if not tab.is_visible():
        page.locator("#tabs .overflow-menu > button").click()
        page.locator("#tabs .overflow-dropdown").get_by_role("button", name=name, exact=True).click()
    else:
        tab.click()
