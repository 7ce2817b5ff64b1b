"""The Region screen: a region is dropped, its map appears, a tile is chosen and explained."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image, ImageFilter
from playwright.sync_api import Browser, Locator, Page, expect

from serving.gateway.app import Edge
from serving.gateway.pages import OPENSEADRAGON
from serving.supervisor import TorchServe
from tests.conftest import Pixels
from tests.support.edge import running, settings_for
from tests.support.mosaic import mapped, mosaic
from tests.support.waiting import wait_for
from tests.web.conftest import Visits, choose, visits_to

pytestmark = pytest.mark.skipif(not OPENSEADRAGON.is_file(), reason="npm ci --prefix serving/viewer was not run")

ROWS, COLUMNS = 4, 5
PATIENCE = 240_000
DROP = """([data, name]) => {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], name, { type: "image/png" }));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
}"""
NAMES = {
    "ADI": "Adipose",
    "BACK": "Background",
    "DEB": "Debris",
    "LYM": "Lymphocytes",
    "MUC": "Mucus",
    "MUS": "Smooth muscle",
    "NORM": "Normal mucosa",
    "STR": "Tumour stroma",
    "TUM": "Tumour epithelium",
}


@pytest.fixture(scope="module")
def region(tiles: Pixels, encode: Callable[..., bytes]) -> bytes:
    return encode(mosaic(tiles, ROWS, COLUMNS))


@pytest.fixture(scope="module")
def job(server: TorchServe, region: bytes) -> str:
    return mapped(server, region)


@pytest.fixture(scope="module")
def found(server: TorchServe, job: str) -> dict[str, Any]:
    content: dict[str, Any] = requests.get(f"{server.url}{job}/map.json", timeout=30).json()
    return content


def drop(page: Page, file: bytes) -> None:
    page.evaluate(DROP, [base64.b64encode(file).decode(), "region.png"])


def open_map(visit: Visits, job: str, **options: Any) -> Page:
    page = visit(f"/region?job={job.rpartition('/')[2]}", **options)
    expect(page.locator("table.composition")).to_be_visible(timeout=PATIENCE)
    expect(page.locator(".slide canvas.overlay")).to_be_visible()
    return page


def click_tile(page: Page, row: int, column: int) -> None:
    """Click the middle of a tile. At first the whole region is in view, in the middle."""
    box = page.locator(".slide").bounding_box()
    assert box is not None
    scale = min(box["width"] / COLUMNS, box["height"] / ROWS)
    left = box["x"] + (box["width"] - scale * COLUMNS) / 2
    top = box["y"] + (box["height"] - scale * ROWS) / 2
    page.mouse.click(left + scale * (column + 0.5), top + scale * (row + 0.5))


def detail(page: Page) -> Locator:
    return page.locator("section[aria-labelledby=place]")


def test_a_dropped_region_becomes_a_map_and_a_tile_its_explanation(
    visit: Visits, server: TorchServe, region: bytes, found: dict[str, Any]
) -> None:
    page = visit("/region")
    page.get_by_label("Micrometres per pixel").fill("4")
    drop(page, region)
    table = page.locator("table.composition")
    expect(table).to_be_visible(timeout=PATIENCE)
    for code, share in found["composition"]["classes"].items():
        row = table.get_by_role("row", name=NAMES[code])
        expect(row).to_have_count(1 if share["tiles"] else 0)
        if share["tiles"]:
            expect(row).to_contain_text(f"{share['mm2']:.{2 if share['mm2'] >= 0.1 else 3}f} mm²")
    tile = next(item for item in found["tiles"] if item["state"] == "confident" and item["class"] != "BACK")
    click_tile(page, tile["row"], tile["column"])
    expect(detail(page).locator("canvas[data-map=gradcam]")).to_be_visible(timeout=PATIENCE)
    expect(detail(page)).to_contain_text(f"Row {tile['row'] + 1}, column {tile['column'] + 1}")
    expect(detail(page).locator("h2")).to_have_text(NAMES[tile["class"]])
    expect(detail(page).locator(".legend")).to_contain_text(NAMES[tile["class"]])
    expect(page.locator("#announcement")).to_contain_text(NAMES[tile["class"]], ignore_case=True)
    with page.expect_download() as download:
        page.get_by_role("button", name="GeoJSON for QuPath").click()
    shapes = json.loads(Path(download.value.path()).read_text())
    assert {feature["properties"]["objectType"] for feature in shapes["features"]} == {"annotation"}
    address = server.url + "/jobs/" + page.url.partition("job=")[2]
    assert requests.get(address, timeout=30).status_code == 200
    page.get_by_role("button", name="New region").click()
    expect(page.get_by_role("heading", name="Which tissues")).to_be_visible()
    wait_for(lambda: requests.get(address, timeout=30).status_code == 404)


def test_a_tile_says_what_is_wrong_with_its_picture(
    visit: Visits, server: TorchServe, tiles: Pixels, encode: Callable[..., bytes]
) -> None:
    sharp = Image.fromarray(mosaic(tiles, ROWS, COLUMNS))
    job = mapped(server, encode(sharp.filter(ImageFilter.GaussianBlur(3))))
    found = requests.get(f"{server.url}{job}/map.json", timeout=30).json()
    tile = next(item for item in found["tiles"] if "out_of_focus" in item["fit_reasons"])
    page = open_map(visit, job)
    click_tile(page, tile["row"], tile["column"])
    expect(detail(page)).to_contain_text(": out of focus")


def test_a_region_without_a_pixel_size_is_asked_for_it(visit: Visits, region: bytes) -> None:
    page = visit("/region")
    choose(page, region)
    field = page.get_by_label("Micrometres per pixel")
    expect(page.get_by_role("heading", name="No map")).to_be_visible(timeout=PATIENCE)
    expect(field).to_be_focused()
    field.fill("4")
    field.press("Enter")
    expect(page.locator("table.composition")).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="New region").click()


def overlay(page: Page) -> np.ndarray[Any, Any]:
    """The map's pixels, RGBA, without the picture below."""
    width, height, values = page.locator(".slide canvas.overlay").evaluate(
        """canvas => {
            const { width, height } = canvas;
            return [width, height, [...canvas.getContext("2d").getImageData(0, 0, width, height).data]];
        }"""
    )
    return np.array(values, np.uint8).reshape(height, width, 4)


def test_the_map_has_the_colours_of_its_classes_and_hatches_what_is_uncertain(
    visit: Visits, job: str, found: dict[str, Any]
) -> None:
    page = open_map(visit, job, width=1280)
    page.get_by_label("Map opacity").fill("1")
    pixels = overlay(page)
    height, width = pixels.shape[:2]
    scale = min(width / COLUMNS, height / ROWS)
    left, top = (width - scale * COLUMNS) / 2, (height - scale * ROWS) / 2
    colours = {item["code"]: tuple(bytes.fromhex(item["colour"][1:])) for item in found["classes"]}
    for tile in found["tiles"]:
        x, y = round(left + scale * tile["column"]) + 2, round(top + scale * tile["row"]) + 2
        inside = pixels[y : y + round(scale) - 4, x : x + round(scale) - 4, :3].reshape(-1, 3)
        share = (np.abs(inside.astype(int) - colours[tile["class"]]).max(axis=1) < 3).mean()
        assert (share > 0.95) != tile["abstained"], tile
    # Without the classes nothing is left but glass.
    for box in page.locator("table.composition input").all():
        box.uncheck()
    assert overlay(page).max() == 0


def test_the_keyboard_reaches_every_tile(visit: Visits, job: str, found: dict[str, Any]) -> None:
    page = open_map(visit, job)
    page.locator(".slide [role=application]").focus()
    page.keyboard.press("ArrowRight")
    middle = f"Row {ROWS // 2 + 1}, column {COLUMNS // 2 + 1}"
    expect(page.locator("#announcement")).to_contain_text(middle)
    for _ in range(ROWS):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    expect(detail(page)).to_contain_text(f"Row 1, column {COLUMNS // 2}")
    by_place = {(tile["row"], tile["column"]): tile for tile in found["tiles"]}
    if (0, COLUMNS // 2 - 1) in by_place:
        page.keyboard.press("Enter")
        expect(detail(page).locator("canvas[data-map]")).to_be_visible(timeout=PATIENCE)
        page.get_by_role("button", name="Open this tile in Analyse").click()
        expect(page.locator("main")).to_have_attribute("data-screen", "/")
        expect(page.locator("canvas[data-map=gradcam]")).to_be_visible(timeout=PATIENCE)


def test_an_image_that_is_no_region_says_why(visit: Visits) -> None:
    page = visit("/region")
    choose(page, b"not an image", "notes.txt")
    expect(page.get_by_role("heading", name="No map")).to_be_visible(timeout=PATIENCE)
    expect(page.locator(".verdict")).to_contain_text("format")
    page.get_by_role("button", name="New region").click()
    expect(page.get_by_role("heading", name="Which tissues")).to_be_visible()


def test_without_openseadragon_the_figures_are_there(visit: Visits, server: TorchServe, job: str) -> None:
    page = visit("/")
    page.route(re.compile(r"/openseadragon\.js$"), lambda route: route.fulfill(status=404))
    page.goto(f"{server.url}/region?job={job.rpartition('/')[2]}")
    expect(page.locator("table.composition")).to_be_visible(timeout=PATIENCE)
    expect(page.locator(".slide")).to_contain_text("no OpenSeadragon")


def test_a_large_image_on_the_first_screen_is_offered_as_a_region(visit: Visits, encode: Callable[..., bytes]) -> None:
    page = visit("/")
    choose(page, encode(Image.new("RGB", (2000, 300), "white")))
    page.get_by_role("button", name="Open it as a region").click()
    expect(page.locator("main")).to_have_attribute("data-screen", "/region")
    expect(page.get_by_role("heading", name="No map")).to_be_visible(timeout=PATIENCE)


@pytest.fixture
def with_slides(server: TorchServe, tmp_path: Path, tiles: Pixels) -> Iterator[str]:
    folder = tmp_path / "slides"
    folder.mkdir()
    Image.fromarray(mosaic(tiles, ROWS, COLUMNS)).save(folder / "a.tif", dpi=(25400 / 4, 25400 / 4))
    with running(Edge(settings_for(server, edge_jobs_folder=tmp_path / "jobs", edge_slides=folder))) as url:
        yield url


def test_a_slide_of_the_server_is_opened(browser: Browser, with_slides: str, found: dict[str, Any]) -> None:
    with visits_to(browser, with_slides) as visit:
        page = visit("/region")
        page.get_by_role("button", name="Open the slide").click()
        expect(page.locator("table.composition")).to_be_visible(timeout=PATIENCE)
        expect(page.locator(".verdict p")).to_contain_text(f"{found['composition']['tissue']['mm2']:.2f} mm²")
        page.get_by_role("button", name="New region").click()
        expect(page.get_by_role("heading", name="Which tissues")).to_be_visible()
