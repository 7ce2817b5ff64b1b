"""How long a new user takes from `make demo` to a map on his own image: `python -m bench.first_map`.

The page is installed from nothing, in a copy of the tracked files, and opened in headless Chromium; the image is chosen
as soon as the page can be used. A model server has to be running (`make serve`). Prints JSON, times in seconds since
`make demo` was called.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent


def copy_tracked(folder: Path) -> None:
    """What a user gets who clones the repository, with the changes of this working tree."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


def measure(folder: Path, server: str, metrics: str, image: Path, port: int) -> dict[str, float]:
    """Seconds until the page's address is printed, until it can be used, until the class and until the map."""
    start = time.monotonic()
    found: dict[str, float] = {}

    def note(name: str) -> None:
        found[name] = round(time.monotonic() - start, 1)

    options = f"ARGS=--server {server} --metrics {metrics} --port {port}"
    process = subprocess.Popen(["make", "demo", options], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        if not any(line.startswith("page: ") for line in process.stdout):
            sys.exit("first_map: `make demo` ended before the page was there")
        note("address")
        with sync_playwright() as playwright:
            program = shutil.which("chromium") or shutil.which("chromium-browser")
            page = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"]).new_page()
            page.goto(f"http://127.0.0.1:{port}")
            upload = page.locator("#tile input[type=file]")
            upload.wait_for(state="attached", timeout=120_000)
            note("usable")
            upload.set_input_files(image)
            page.locator("#class").wait_for(timeout=120_000)
            note("class")
            # The first map stands beside the class.
            page.locator("#answer .overlay .map").wait_for(timeout=120_000)
            note("map")
    finally:
        process.terminate()
        process.wait(60)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8080")
    parser.add_argument("--metrics", default="http://127.0.0.1:8080")
    parser.add_argument("--image", type=Path, default=ROOT / "docs" / "tile.png")
    parser.add_argument("--port", type=int, default=7861)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy_tracked(Path(folder))
        options = (arguments.server, arguments.metrics, arguments.image, arguments.port)
        report = {"installing": measure(Path(folder), *options), "installed": measure(Path(folder), *options)}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
