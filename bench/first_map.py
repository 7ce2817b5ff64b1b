"""How long a visitor of the page waits for the class and the map of an image: `python -m bench.first_map`.

Headless Chromium opens the page of a running server (`make serve`) as a new visitor and chooses the image, again and
again. Prints JSON: medians and 95th percentiles in milliseconds, and the bytes of the page, pictures excluded.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Response, sync_playwright

ROOT = Path(__file__).parent.parent
PICTURES = ("image/png", "image/svg+xml")


def visit(browser: Browser, url: str, image: Path) -> dict[str, float]:
    """Milliseconds until the page can be used, and from choosing the image to its class and to its map; bytes."""
    page = browser.new_page()
    loaded: list[Response] = []
    page.on("response", lambda response: loaded.append(response))
    start = time.monotonic()
    page.goto(url)
    page.get_by_role("button", name="Choose a file").wait_for()
    usable = time.monotonic()
    page.wait_for_load_state("networkidle")
    files = [item.body() for item in loaded if item.headers.get("content-type") not in PICTURES]
    chosen = time.monotonic()
    page.locator("#file").set_input_files(image)
    page.locator("#verdict").wait_for()
    answered = time.monotonic()
    page.locator("canvas[data-map]").wait_for()
    drawn = time.monotonic()
    page.close()
    return {
        "usable_ms": 1000 * (usable - start),
        "class_ms": 1000 * (answered - chosen),
        "map_ms": 1000 * (drawn - chosen),
        "bytes": float(sum(map(len, files))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8080")
    parser.add_argument("--image", type=Path, default=ROOT / "docs" / "tile.png")
    parser.add_argument("--visits", type=int, default=20)
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        visits = [visit(browser, arguments.server, arguments.image) for _ in range(arguments.visits)]
    figures = {name: [item[name] for item in visits] for name in visits[0]}
    report = {name: {"median": np.median(values), "p95": np.quantile(values, 0.95)} for name, values in figures.items()}
    print(json.dumps({"visits": len(visits), **report}, indent=2))


if __name__ == "__main__":
    main()
