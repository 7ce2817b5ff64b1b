"""Every screen is accessible and fits at every width, in light and dark.

`make screenshots` writes all screenshots to runs/screens/, and those for the documentation to docs/page/. The tile is
one of the page's examples.
"""

import os
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from handler.classes import CODES
from serving.gateway.pages import OPENSEADRAGON
from serving.supervisor import ROOT, TorchServe
from tests.support.mosaic import mapped, mosaic
from tests.web.conftest import EXAMPLES, Visits, choose, visits_to, wait_for_map

# Widths and heights in pixels.
SIZES = {"desktop": (1440, 900), "tablet": (820, 1180), "phone": (390, 844)}
SCREENS = {
    "first": "/",
    "result": "/",
    "compare": "/compare",
    "region": "/region",
    "model": "/model",
    "tissues": "/tissues",
    "server": "/server",
}
DOCUMENTED = {("first", "desktop", False), ("result", "desktop", False), ("compare", "desktop", False)}
DOCUMENTED |= {("region", "desktop", False), ("model", "desktop", True), ("result", "phone", False)}
TILE = EXAMPLES / "STR.png"
COLOURS = 256
TAKES_SCREENSHOTS = "SCREENSHOTS" in os.environ


@pytest.fixture(scope="module", params=[False, True], ids=["light", "dark"])
def screens(request: pytest.FixtureRequest, browser: Browser, server: TorchServe, job: str) -> Iterator[Visits]:
    """Three visitors in light or dark mode: one without a tile, one with a tile, one with a region."""
    with visits_to(browser, server.url) as visit:
        visit(dark=request.param)
        page = visit(dark=request.param)
        choose(page, TILE)
        wait_for_map(page)
        show_region(visit(f"/region?job={job.rpartition('/')[2]}", dark=request.param))
        yield visit


@pytest.fixture(scope="module")
def job(server: TorchServe, encode: Callable[..., bytes]) -> str:
    """A region of the page's examples, in which each tissue has a place of its own."""
    tiles = np.stack([np.asarray(Image.open(EXAMPLES / f"{code}.png").convert("RGB")) for code in CODES])
    corner = mosaic(tiles, 3, 3)
    return mapped(server, encode(np.concatenate([np.concatenate([corner, corner], 1)] * 2)))


def show_region(page: Page) -> None:
    """Choose and explain a tile with the keyboard."""
    expect(page.locator("table.composition")).to_be_visible()
    if not OPENSEADRAGON.is_file():
        return
    page.locator(".slide [role=application]").focus()
    title = page.locator("section[aria-labelledby=place] h2")
    page.keyboard.press("ArrowRight")
    while title.inner_text() == "Glass":
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("section canvas[data-map]")).to_be_visible()


def show(screens: Visits, name: str, size: str) -> Page:
    """A completely rendered screen."""
    page = screens.contexts[{"first": 0, "region": 2}.get(name, 1)].pages[0]
    width, height = SIZES[size]
    page.set_viewport_size({"width": width, "height": height})
    link = page.locator(f"a[href='{SCREENS[name]}']").first
    if urlsplit(page.url).path != SCREENS[name]:
        if name == "compare":
            page.goto(screens.url + "/compare?methods=gradcam,occlusion,saliency&target=STR&contrast=MUS")
        else:
            link.click()
    drawn = {
        "first": ".figures dt",
        "result": "canvas[data-map=gradcam]",
        "compare": "canvas[data-map=saliency]",
        "region": "table.composition",
        "model": ".multiples svg",
        "tissues": ".figures-of:not(:empty)",
        "server": ".rows svg",
    }
    expect(page.locator("main")).to_have_attribute("data-screen", SCREENS[name])
    expect(page.locator(drawn[name]).first).to_be_visible()
    expect(page.locator(".skeleton")).to_have_count(0)
    return page


def is_dark(page: Page) -> bool:
    return bool(page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches"))


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_accessible_fits_and_has_its_picture(name: str, screens: Visits, folder: Path) -> None:
    for size in SIZES:
        page = show(screens, name, size)
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0], size
        take_picture(page, name, size, folder)
        if size != "tablet":
            assert violations(page) == [], size
    assert small_targets(page) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The output folder of the screenshots."""
    chosen = ROOT / "runs" / "screens" if TAKES_SCREENSHOTS else tmp_path
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def violations(page: Page) -> list[tuple[str, str]]:
    """Violations reported by axe: each rule with the first element that violates it."""
    return [(item["id"], item["nodes"][0]["html"]) for item in Axe().run(page).response["violations"]]


def small_targets(page: Page) -> list[list[Any]]:
    """Buttons and fields smaller than a touch target of 44 pixels: markup, width, height."""
    targets = page.locator("button, summary, select, input, nav a, a.button").filter(visible=True)
    sizes = targets.evaluate_all(
        """elements => elements.map((element) => {
            const box = (element.type === "checkbox" ? element.closest("label") : element).getBoundingClientRect();
            return [element.outerHTML.slice(0, 80), box.width, box.height];
        })"""
    )
    return [entry for entry in sizes if min(entry[1:]) < 43.5]


def take_picture(page: Page, name: str, size: str, folder: Path) -> None:
    page.evaluate("window.scrollTo(0, 0)")
    picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
    assert picture.size == SIZES[size]
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 50
    small = picture.quantize(COLOURS, Image.Quantize.FASTOCTREE)
    small.save(folder / f"{name}-{size}-{'dark' if is_dark(page) else 'light'}.png", optimize=True)
    if TAKES_SCREENSHOTS and (name, size, is_dark(page)) in DOCUMENTED:
        (ROOT / "docs" / "page").mkdir(exist_ok=True)
        small.save(ROOT / "docs" / "page" / f"{name}-{size}.png", optimize=True)


@pytest.mark.parametrize("name", ["model", "server"])
def test_charts_are_as_dark_as_the_page(name: str, screens: Visits) -> None:
    page = show(screens, name, "desktop")
    box = page.locator("svg.chart, .rows").first.bounding_box()
    assert box is not None
    picture = page.screenshot(clip=box, full_page=True)
    pixels = np.asarray(Image.open(BytesIO(picture)).convert("L"))
    assert (np.median(pixels) < 60) == is_dark(page)
