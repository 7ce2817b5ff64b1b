"""What a visitor does, in headless Chromium, against the real server."""

import base64
import json
import re
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import requests
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

from demo.markup import percent
from serving.supervisor import ROOT, TILE, TorchServe
from tests.conftest import Pixels
from tests.demo.conftest import Visit, choose, open_tab
from tests.support.images import Encode
from training.data import PathMNIST

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask(server: TorchServe) -> Ask:
    def ask(image: bytes, verb: str = "predictions", **options: str) -> dict[str, Any]:
        answer = requests.post(f"{server.url}/{verb}/pathmnist", data=image, params=options, timeout=120)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    return ask


@pytest.fixture
def count(server: TorchServe) -> Callable[[str], float]:
    def count(name: str) -> float:
        """A counter of the server, once its log has been read; by name, or by name and labels."""
        time.sleep(0.5)
        text = requests.get(f"{server.metrics_url}/metrics", timeout=30).text
        labels = "" if name.endswith("}") else r"\{.*\}"
        return sum(map(float, re.findall(rf"^{re.escape(name)}{labels} (\S+)", text, re.MULTILINE)))

    return count


def shown(page: Page, method: str, index: int) -> NDArray[np.uint8]:
    """A picture of a method's card as RGB: 0 the tile, 1 the map."""
    return decoded(page.locator(f'#maps .card[data-method="{method}"] img').nth(index).get_attribute("src") or "")


def decoded(source: str) -> NDArray[np.uint8]:
    picture = Image.open(BytesIO(base64.b64decode(source.partition(",")[2] or source)))
    return np.asarray(picture.convert("RGB"))


def same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Equal but for rounding: in a batch a float may end on the other side of a colour's edge."""
    return one.shape == other.shape and float(np.abs(one.astype(int) - other.astype(int)).mean()) < 0.1


def wait_for_maps(page: Page, *methods: str) -> None:
    cards = page.locator("#maps .card")
    expect(cards).to_have_count(len(methods))
    for place, method in enumerate(methods):
        expect(cards.nth(place)).to_have_attribute("data-method", method)


def overlay_opacity(page: Page) -> float:
    return float(page.locator("#maps .overlay .map").first.evaluate("element => getComputedStyle(element).opacity"))


def test_a_real_tile_gets_the_servers_answer(visit: Visit, ask: Ask, real_data: PathMNIST, encode: Encode) -> None:
    tile = encode(real_data.test.images[0])
    expected = ask(tile)
    page = visit()
    choose(page, "tile.png", tile)
    expect(page.locator("#class")).to_contain_text(expected["prediction"]["code"])
    expect(page.locator("#class")).to_contain_text(expected["prediction"]["name"])
    expect(page.locator(".confidence")).to_contain_text(percent(expected["confidence"]))
    expect(page.locator("#risk")).to_contain_text(f"Risk group: {expected['risk']['level']}")
    expect(page.locator("#risk")).to_contain_text(expected["risk"]["disclaimer"])
    for code in expected["prediction_set"]["codes"]:
        expect(page.locator("#set")).to_contain_text(f"({code})")
    expect(page.locator("#origin")).to_contain_text(expected["model"]["digest"][:12])
    expect(page.locator("#origin")).to_contain_text(re.compile(r"Answered in \d+ ms"))
    expect(page.locator("#bars .bars path")).to_have_count(9)
    expect(page.locator("#unfamiliar")).to_have_count(0 if expected["in_distribution"] else 1)

    noise = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert ask(noise)["in_distribution"] is False
    choose(page, "noise.png", noise)
    expect(page.locator("#unfamiliar")).to_contain_text("should not be relied on")


def test_maps_are_the_servers_and_drawing_costs_no_explanation(
    visit: Visit, ask: Ask, count: Callable[[str], float], encode: Encode, tiles: Pixels
) -> None:
    tile = encode(tiles[4])
    page = visit("?tab=explain")
    choose(page, "tile.png", tile)
    wait_for_maps(page, "gradcam")
    page.get_by_label("Saliency").check()
    wait_for_maps(page, "gradcam", "saliency")
    expected = ask(tile, "explanations", method="gradcam,saliency", alpha="0")
    for found in expected["explanations"]:
        assert same(shown(page, found["method"], 0), decoded(found["overlay"]))
        assert same(shown(page, found["method"], 1), decoded(found["heatmap"]))
    expect(page.locator("#maps .facts").first).to_contain_text("completeness residual")

    asked, missed = count("ts_inference_requests_total"), count('pathmnist_explanation_cache_total{result="miss"}')
    slider = page.get_by_role("slider", name="Opacity")
    slider.focus()
    for key, opacity in (("End", 1.0), ("Home", 0.0), ("ArrowRight", 0.05)):
        slider.press(key)
        page.wait_for_function(
            "value => Math.abs(getComputedStyle(document.querySelector('#maps .overlay .map')).opacity - value) < 1e-6",
            arg=opacity,
        )
    assert count("ts_inference_requests_total") == asked

    inferno = shown(page, "saliency", 1)
    pick(page, "Colour map", "viridis")
    page.wait_for_function(
        "before => document.querySelectorAll('#maps .card[data-method=saliency] img')[1].src !== before",
        arg=page.locator("#maps .card[data-method=saliency] img").nth(1).get_attribute("src"),
    )
    assert not same(shown(page, "saliency", 1), inferno)
    assert overlay_opacity(page) == pytest.approx(0.05)
    assert count("ts_inference_requests_total") == asked + 1
    assert count('pathmnist_explanation_cache_total{result="miss"}') == missed


def pick(page: Page, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option).click()


def test_a_contrast_can_be_shared_by_its_address(visit: Visit, encode: Encode, tiles: Pixels) -> None:
    tile = encode(tiles[7])
    page = visit()
    choose(page, "tile.png", tile)
    open_tab(page, "Explain")
    wait_for_maps(page, "gradcam")
    page.get_by_label("LayerCAM").check()
    page.get_by_role("button", name="Stroma against muscle").click()
    expect(page.locator("#maps .card h2").last).to_contain_text("for STR rather than MUS")
    page.get_by_role("slider", name="Opacity").press("End")
    page.wait_for_url(re.compile("opacity=1"))
    assert parse_qs(urlsplit(page.url).query) == {
        "tab": ["explain"],
        "methods": ["gradcam,layercam"],
        "target": ["STR"],
        "contrast": ["MUS"],
        "opacity": ["1"],
    }

    other = visit("?" + urlsplit(page.url).query)
    expect(other.get_by_role("tab", name="Explain", exact=True)).to_have_attribute("aria-selected", "true")
    choose(other, "tile.png", tile)
    wait_for_maps(other, "gradcam", "layercam")
    assert overlay_opacity(other) == 1
    for method in ("gradcam", "layercam"):
        assert same(shown(page, method, 1), shown(other, method, 1))


def test_refusals_and_time_limits_are_shown_in_words(visit: Visit, encode: Encode, tiles: Pixels) -> None:
    page = visit("?tab=explain&methods=gradcam,occlusion&target=STR&contrast=STR&budget=500")
    choose(page, "tile.png", encode(tiles[8]))
    expect(page.locator("#maps [role=alert]")).to_contain_text("contrast")
    pick(page, "rather than", "MUS, smooth muscle")
    wait_for_maps(page, "gradcam", "occlusion")
    expect(page.locator("#explained")).to_contain_text("with a time limit of 0.5 s")
    last = page.locator("#maps .card").last
    # A fast machine has time for both.
    assert last.locator("img").count() == 3 or "Raise the time limit" in last.inner_text()


def test_downloads_hold_the_pictures_and_the_signed_maps(visit: Visit, ask: Ask, tmp_path: Path) -> None:
    page = visit("?tab=explain&methods=gradcam,layercam&opacity=0.25")
    choose(page, "tile.png", TILE.read_bytes())
    wait_for_maps(page, "gradcam", "layercam")
    with page.expect_download() as picture:
        page.get_by_role("button", name="Download PNG").click()
    picture.value.save_as(tmp_path / "maps.png")
    sheet = np.asarray(Image.open(tmp_path / "maps.png").convert("RGB")).astype(float)
    size, gap, title = 224, 4, 24
    assert sheet.shape == (2 * (size + title), 3 * size + 2 * gap, 3)
    for row, method in enumerate(("gradcam", "layercam")):
        line = sheet[row * (size + title) + title :][:size]
        tile, heatmap, overlay = (line[:, start : start + size] for start in (0, size + gap, 2 * (size + gap)))
        assert same(tile.astype(np.uint8), shown(page, method, 0))
        assert same(heatmap.astype(np.uint8), shown(page, method, 1))
        assert np.abs(overlay - (0.75 * tile + 0.25 * heatmap)).max() <= 2

    with page.expect_download() as document:
        page.get_by_role("button", name="Download JSON").click()
    document.value.save_as(tmp_path / "maps.json")
    found = json.loads((tmp_path / "maps.json").read_text())
    expected = ask(TILE.read_bytes(), "explanations", **{"method": "gradcam,layercam", "return": "raw"})
    assert found["model"] == expected["model"]
    for one, other in zip(found["explanations"], expected["explanations"], strict=True):
        assert one["method"] == other["method"]
        values = np.frombuffer(base64.b64decode(one["attribution"]["data"]), "<f2") * one["attribution"]["scale"]
        exact = np.frombuffer(base64.b64decode(other["attribution"]["data"]), "<f4")
        assert np.abs(values - exact).max() < 1e-3 * np.abs(exact).max()


def test_what_the_server_would_refuse_is_not_sent(
    visit: Visit, encode: Encode, count: Callable[[str], float], tmp_path: Path
) -> None:
    page = visit()
    before = count("ts_inference_requests_total")
    for content, message in (
        (b"these are not pixels", "not an image the model can read"),
        (encode(np.zeros((8, 8, 3), np.uint8)), "8 x 8 pixels"),
        (b"\0" * (17 * 1024 * 1024), "exceed the maximum allowed size of 16"),
    ):
        (tmp_path / "file.png").write_bytes(content)
        page.locator("#tile input[type=file]").set_input_files(tmp_path / "file.png")
        expect(page.get_by_text(message).first).to_be_visible()
    assert count("ts_inference_requests_total") == before


def test_a_tile_can_be_pasted_or_taken_from_the_examples(visit: Visit, ask: Ask) -> None:
    page = visit()
    encoded = base64.b64encode(TILE.read_bytes()).decode()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (encoded) => {
            const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
            await navigator.clipboard.write([new ClipboardItem({"image/png": new Blob([bytes], {type: "image/png"})})]);
        }""",
        encoded,
    )
    page.locator("#tile").get_by_label("Paste from clipboard").click()
    expect(page.locator("#class")).to_contain_text(ask(TILE.read_bytes())["prediction"]["code"])
    page.get_by_role("button", name="Example: lymphocytes").click()
    example = (ROOT / "demo" / "tiles" / "LYM.png").read_bytes()
    expect(page.locator("#class")).to_contain_text(ask(example)["prediction"]["code"])


def test_visitors_at_the_same_time_see_their_own_tiles(visit: Visit, ask: Ask, encode: Encode, tiles: Pixels) -> None:
    files = [encode(tile) for tile in tiles[:2]]
    pages = [visit("?tab=explain") for _ in files]
    for page, file in zip(pages, files, strict=True):
        choose(page, "tile.png", file)
    for page, file in zip(pages, files, strict=True):
        wait_for_maps(page, "gradcam")
        expected = ask(file, "explanations", alpha="0")
        assert same(shown(page, "gradcam", 0), decoded(expected["explanations"][0]["overlay"]))
        assert same(shown(page, "gradcam", 1), decoded(expected["explanations"][0]["heatmap"]))
        open_tab(page, "Classify")
        expect(page.locator("#class")).to_contain_text(expected["prediction"]["code"])


def test_the_newest_tile_wins_over_a_slow_answer(visit: Visit, ask: Ask, encode: Encode, tiles: Pixels) -> None:
    page = visit("?tab=explain&methods=gradcam,integrated_gradients")
    slow, quick = encode(tiles[9]), encode(tiles[10])
    choose(page, "slow.png", slow)
    expect(page.locator("#maps .generating, #maps .wrap").first).to_be_attached()
    choose(page, "quick.png", quick)
    (expected, _) = ask(quick, "explanations", method="gradcam,integrated_gradients", alpha="0")["explanations"]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if page.locator("#maps .card").count() == 2 and same(shown(page, "gradcam", 1), decoded(expected["heatmap"])):
            break
        time.sleep(0.2)
    time.sleep(2)
    assert same(shown(page, "gradcam", 1), decoded(expected["heatmap"]))


def test_the_model_tab_shows_the_reports(visit: Visit) -> None:
    folder = ROOT / "docs" / "evaluation"
    evaluation = json.loads((folder / "evaluation.json").read_text())
    page = visit("?tab=model")
    tab = page.locator("#model")
    for split, label in (("test", "test"), ("val", "validation")):
        page.get_by_label(label, exact=True).check()
        found = evaluation["splits"][split]
        expect(tab).to_contain_text(f"Measured on {found['images']} {label} tiles")
        expect(tab).to_contain_text(f"{found['accuracy']['value']:.4f}")
        expect(tab).to_contain_text(f"{found['balanced_accuracy']['value']:.4f}")
        expect(tab.get_by_role("row", name="STR")).to_contain_text(f"{found['classes']['STR']['recall']['value']:.4f}")
        cells = tab.locator(".heatmap-label")
        expect(cells).to_have_text([str(number) for row in found["confusion_matrix"] for number in row])
    page.get_by_label("Confusion matrix in %").check()
    first = evaluation["splits"]["val"]["confusion_matrix"][0]
    expect(tab.locator(".heatmap-label").first).to_have_text(f"{100 * first[0] / sum(first):.0f}")
    expect(tab.locator(".js-plotly-plot")).to_have_count(3)


def test_the_live_tab_shows_what_the_server_counts(visit: Visit, ask: Ask, count: Callable[[str], float]) -> None:
    page = visit()
    open_tab(page, "Live")
    line = page.locator("#live-line")
    expect(line).to_contain_text(f"Since the server started: {count('ts_inference_requests_total'):.0f} requests")
    ask(TILE.read_bytes())
    expect(line).to_contain_text(f"{count('ts_inference_requests_total'):.0f} requests")
    expect(page.locator("#live .js-plotly-plot")).to_have_count(3)
    expect(page.locator("#live .bars path")).to_have_count(9)
