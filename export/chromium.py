"""Serving a folder to a browser on this machine, and opening the browser."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from export.npm import MissingRuntimeError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class _Handler(SimpleHTTPRequestHandler):
    """Files, with the headers under which a browser lets WebAssembly use threads."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """The address of a server on loopback, on a free port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def chromium_page() -> Iterator[Page]:
    """A page of Debian's Chromium, headless; raises `MissingRuntimeError` where there is none."""
    if CHROMIUM is None:
        raise MissingRuntimeError("no chromium on this machine (apt-get install chromium)")
    with sync_playwright() as playwright:
        # Root, as in containers, has no sandbox.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser.new_page()
        finally:
            browser.close()


def link(folder: Path, **files: Path) -> None:
    """Put files or folders into a folder to be served, by name."""
    for name, target in files.items():
        (folder / name).symlink_to(target.resolve())
