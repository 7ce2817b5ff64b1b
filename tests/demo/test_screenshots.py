"""Pictures of every tab, from a real server. `make screenshots` writes them to docs/demo/.

The tile shown is a generated one.
"""

import os
import re
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

from serving.server import TILE
from tests.demo.conftest import TABS, Visit, choose, open_tab

SIZE = {"width": 1100, "height": 760}
COLOURS = 96


def wait_until_drawn(page: Page, tab: str) -> None:
    charts = {"Classify": 1, "Model": 3, "Live": 3}
    if tab in charts:
        expect(page.locator(".js-plotly-plot:visible")).to_have_count(charts[tab])
    if tab == "Live":
        expect(page.locator("#live-line")).to_contain_text(re.compile("Since the server started: [1-9]"))
        expect(page.locator("#live .scatterlayer .point").first).to_be_attached(timeout=20000)
    if tab == "Explain":
        expect(page.locator("#maps .card")).to_have_count(3, timeout=30000)
    page.wait_for_timeout(500)


def test_every_tab_has_its_picture(visit: Visit, tmp_path: Path) -> None:
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    page = visit("?methods=gradcam,layercam,integrated_gradients", viewport=SIZE)
    choose(page, "tile.png", TILE.read_bytes())
    expect(page.locator("#class")).to_be_visible()
    for tab in TABS:
        open_tab(page, tab)
        wait_until_drawn(page, tab)
        picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
        assert picture.size == (SIZE["width"], SIZE["height"])
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > COLOURS
        name = tab.lower().replace(" ", "-")
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(folder / f"{name}.png", optimize=True)
