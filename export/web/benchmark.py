"""The page's speed in Chromium: `python -m export.web.benchmark --data FILE.npz` prints JSON.

Builds the page, opens it as a new visitor, and chooses test tiles as PNG files. `tiles_per_second` is the page's own
figure, from file to answer; the seconds are what a visitor waits, files from this machine. The last figure is of ONNX
Runtime in Python, on the same files directly afterwards.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page

from export.chromium import chromium_page, serve_folder
from export.predictor import Predictor
from export.web.build import build
from handler.api.image import ImageLimits, decode_image
from training.data import add_data_argument, load_or_exit

READY = "#state[data-state=up]"
PATIENCE_MS = 600_000


def measure(page: Page, url: str, files: list[Path]) -> dict[str, Any]:
    start = time.monotonic()
    page.goto(url)
    page.wait_for_selector(READY)
    first = time.monotonic()
    page.reload()
    page.wait_for_selector(READY)
    second = time.monotonic()
    page.set_input_files("#files", files)
    rate = page.locator("#progress[data-rate]:not([data-rate=''])").get_attribute("data-rate")
    asked = time.monotonic()
    page.click("[data-method=saliency]")
    page.wait_for_selector("canvas[data-map=saliency]")
    return {
        "chromium": page.context.browser.version if page.context.browser else "",
        "engine": page.inner_text("#state"),
        "tiles": len(files),
        "tiles_per_second": float(rate or 0),
        "first_visit_seconds": first - start,
        "next_visit_seconds": second - first,
        "first_saliency_seconds": time.monotonic() - asked,
    }


def python_rate(models: Path, files: list[Path]) -> float:
    """Tiles a second of `export.predict`, from file to answer."""
    predictor = Predictor(models)
    start = time.monotonic()
    for file in files:
        predictor.classify(decode_image(file.read_bytes(), ImageLimits()).pixels)
    return len(files) / (time.monotonic() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--models", type=Path, default=Path("model_store"), help="folder `python -m export` wrote")
    parser.add_argument("--tiles", type=int, default=128, help="spread evenly over the test split")
    arguments = parser.parse_args()
    tiles = load_or_exit(arguments.data).test.spread(arguments.tiles)
    with tempfile.TemporaryDirectory() as name:
        site, folder = Path(name, "site"), Path(name, "tiles")
        build(arguments.models, site)
        folder.mkdir()
        files = [folder / f"{index}.png" for index in range(len(tiles))]
        for file, tile in zip(files, tiles, strict=True):
            Image.fromarray(tile).save(file)
        with serve_folder(site) as url, chromium_page() as page:
            page.set_default_timeout(PATIENCE_MS)
            figures = measure(page, url, files)
        rate = python_rate(arguments.models, files)
    print(json.dumps({**figures, "python_tiles_per_second": rate}, indent=2))


if __name__ == "__main__":
    main()
