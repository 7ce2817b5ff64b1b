"""Every tab of the page, with an answer in it: accessible, at every width, by keyboard, and as a picture.

`make screenshots` writes the pictures to docs/demo/; the tile they show is a generated one.
"""

import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from serving.supervisor import ROOT, TILE, TorchServe
from tests.demo.conftest import TABS, Demo, choose, open_tab, visits

WIDTH = 1100
# Tall enough for what a tab is about.
HEIGHTS = {"Classify": 900, "Explain": 1120, "Model": 1060, "Tissue guide": 700, "Live": 860}
COLOURS = 256


@pytest.fixture(scope="module")
def answered(browser: Browser, demo: Demo) -> Iterator[Page]:
    """One visitor's page, after it was given a tile."""
    with visits(browser, demo) as visit:
        page = visit("?methods=gradcam,saliency")
        # Colours are judged as they are in the end, not on their way there.
        page.add_style_tag(content="*, *::before, *::after { transition: none !important; animation: none !important }")
        choose(page, "tile.png", TILE.read_bytes())
        expect(page.locator("#class")).to_be_visible()
        yield page


@pytest.fixture
def page(answered: Page) -> Page:
    answered.set_viewport_size({"width": WIDTH, "height": 900})
    return answered


def show(page: Page, tab: str) -> None:
    """Open a tab and wait until everything on it is drawn."""
    open_tab(page, tab)
    charts = {"Classify": 1, "Model": 3, "Live": 3}
    expect(page.locator(".js-plotly-plot:visible")).to_have_count(charts.get(tab, 0))
    if tab == "Explain":
        expect(page.locator("#maps .card")).to_have_count(2)
    if tab == "Live":
        expect(page.locator("#live-line")).to_contain_text(re.compile("Since the server started: [1-9]"))


def test_every_tab_has_its_picture(page: Page, server: TorchServe, tmp_path: Path) -> None:
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    for tab in TABS:
        page.set_viewport_size({"width": WIDTH, "height": HEIGHTS[tab]})
        show(page, tab)
        if tab == "Live":
            for tile in (ROOT / "demo" / "tiles").glob("*.png"):
                requests.post(f"{server.url}/predictions/pathmnist", data=tile.read_bytes(), timeout=60)
            # Two curves of at least three points each.
            expect(page.locator("#live .scatterlayer").first.locator(".point").nth(5)).to_be_attached()
        page.wait_for_timeout(400)
        picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
        assert picture.size == (WIDTH, HEIGHTS[tab])
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > COLOURS
        name = tab.lower().replace(" ", "-")
        picture.quantize(COLOURS, Image.Quantize.FASTOCTREE).save(folder / f"{name}.png", optimize=True)


@pytest.mark.parametrize("tab", TABS)
def test_a_tab_is_accessible_in_light_and_dark(tab: str, page: Page) -> None:
    show(page, tab)
    for dark in (False, True):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", dark)
        page.wait_for_timeout(300)
        violations = Axe().run(page).response["violations"]
        assert [(dark, found["id"], found["nodes"][0]["html"]) for found in violations] == []
    page.evaluate("document.body.classList.remove('dark')")


def test_every_picture_has_an_alternative_text(page: Page) -> None:
    assert page.locator("img:not([alt])").count() == 0
    for tab, words in (("Explain", "Grad-CAM map for"), ("Tissue guide", "Example tile: ")):
        show(page, tab)
        assert page.locator(f'img[alt^="{words}"]:visible').count() > 0


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_width_needs_sideways_scrolling(width: int, page: Page) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for tab in TABS:
        open_tab(page, tab)
        page.wait_for_timeout(150)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, tab


def test_a_method_can_be_added_by_keyboard_alone(page: Page) -> None:
    open_tab(page, "Classify")
    page.locator("#tabs").get_by_role("tab", name="Classify", exact=True).focus()
    tab_to(page, "tab", "Explain")
    page.keyboard.press("Enter")
    tab_to(page, "checkbox", "LayerCAM")
    page.keyboard.press("Space")
    expect(page.locator("#maps .card[data-method=layercam]")).to_be_visible(timeout=30000)


def tab_to(page: Page, role: str, name: str) -> None:
    """Press Tab until something has the focus."""
    wanted = page.get_by_role(role, name=name, exact=True)  # type: ignore[arg-type]
    for _ in range(40):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            return
    pytest.fail(f"{role} {name!r} is out of reach")
