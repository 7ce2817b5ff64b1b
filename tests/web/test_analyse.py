"""The first screen and the result of a tile."""

import base64
import json
import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import Page, expect

from serving.supervisor import TILE, TorchServe
from tests.conftest import Pixels
from tests.web.conftest import EXAMPLES, Visits, choose, wait_for_map
from training.data import PathMNIST

Encode = Callable[..., bytes]

DRAWING = {"colormap": "evidence", "size": "448", "alpha": "0"}
PIXELS = {"sigma": "2.5", "percentile": "99.5"}


def ask(server: TorchServe, image: bytes, verb: str = "predictions", **options: str) -> dict[str, Any]:
    answer = requests.post(f"{server.url}/{verb}/pathmnist", data=image, params=options, timeout=120)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.fixture(scope="module")
def by_state(server: TorchServe, encode: Encode) -> dict[str, bytes]:
    """An image file (an example or noise) for each state of a verdict."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    files = [*(path.read_bytes() for path in sorted(EXAMPLES.glob("*.png"))), encode(noise)]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda file: ask(server, file, include="verdict"), files)
        by_state = {answer["verdict"]["state"]: file for answer, file in zip(answers, files, strict=True)}
    assert set(by_state) == {"confident", "uncertain", "unreliable"}
    return by_state


def percent(share: float) -> re.Pattern[str]:
    """A pattern for a share in the page's format."""
    value = 100 * share
    if value < 0.1:
        return re.compile("under.0.1.%")
    if 99.9 < value < 100:
        return re.compile("over.99.9.%")
    digits = 1 if value < 9.95 or 99 < value < 100 else 0
    return re.compile(rf"\b{re.escape(f'{value:.{digits}f}')}.%")


def test_the_first_screen_says_what_it_is_how_good_and_what_to_do(visit: Visits, server: TorchServe) -> None:
    page = visit()
    measured = requests.get(f"{server.url}/reports/evaluation.json", timeout=10).json()["splits"]["test"]
    expect(page.locator("main")).to_contain_text("colorectal")
    expect(page.get_by_role("button", name="Choose a file")).to_be_visible()
    figures = page.locator(".figures")
    expect(figures).to_contain_text(f"{100 * measured['accuracy']['value']:.1f} %")
    expect(figures).to_contain_text(f"of {measured['images']} test tiles")
    low, high = (100 * end for end in measured["accuracy"]["interval"])
    expect(figures).to_contain_text(f"{low:.1f} to {high:.1f}")
    worst = min(entry["recall"]["value"] for entry in measured["classes"].values())
    expect(figures).to_contain_text(f"{100 * worst:.1f} %")


@pytest.mark.parametrize("state", ["confident", "uncertain", "unreliable"])
def test_the_verdict_is_the_servers(state: str, visit: Visits, server: TorchServe, by_state: dict[str, bytes]) -> None:
    tile = by_state[state]
    expected = ask(server, tile, coverage="0.95")
    verdict, probabilities = expected["verdict"], expected["probabilities"]
    page = visit()
    choose(page, tile)
    card = page.locator(".card.verdict")
    expect(card).to_have_class(re.compile(state))
    for code in verdict["classes"]:
        name = page.locator(f".bars [data-code={code}] .name").inner_text()
        expect(page.locator("#verdict")).to_contain_text(re.compile(name, re.IGNORECASE))
    if state == "unreliable":
        expect(page.locator("#verdict")).to_have_text("Unlike the training tiles")
        assert expected["risk"] is expected["prediction_set"] is None
    for code, share in probabilities.items():
        expect(page.locator(f".bars [data-code={code}] .share")).to_have_text(percent(share))
    marked = page.locator(".bars .in-set")
    expect(marked).to_have_count(len((expected["prediction_set"] or {"codes": []})["codes"]))
    if verdict["tumour_related"]:
        expect(page.locator("#tumour.flag")).to_contain_text(percent(verdict["tumour_share"]))
    elif state == "unreliable":
        expect(page.locator("#tumour")).to_have_count(0)
    else:
        expect(page.locator("#tumour.note")).to_contain_text("One tile says nothing about the slide")


def test_a_tile_over_the_threshold_is_flagged_whatever_class_wins(
    visit: Visits, server: TorchServe, real_data: PathMNIST, encode: Encode
) -> None:
    page = visit()
    tumour = np.flatnonzero(np.isin(real_data.test.labels, (7, 8)))
    for row in tumour[::50]:
        tile = encode(real_data.test.images[row])
        verdict = ask(server, tile)["verdict"]
        assert verdict["tumour_related"] is not False or verdict["tumour_share"] < verdict["tumour_threshold"]
        choose(page, tile, f"{row}.png")
        wait_for_map(page)
        expect(page.locator("#tumour.flag")).to_have_count(1 if verdict["tumour_related"] else 0)


def test_nothing_on_a_result_is_green(visit: Visits, by_state: dict[str, bytes]) -> None:
    for dark in (False, True):
        page = visit(dark=dark)
        for state, tile in by_state.items():
            choose(page, tile)
            expect(page.locator(f".card.verdict.{state}")).to_be_visible()
            for selector in (".card.verdict", ".card.verdict .pill", "#verdict", ".bars .part", ".health"):
                assert not green(page, selector), (state, selector)


def green(page: Page, selector: str) -> list[str]:
    """The green colours of an element: hues from 75 to 165 degrees, unless they are nearly grey."""
    colours = page.locator(selector).first.evaluate(
        """element => ["color", "backgroundColor", "borderLeftColor", "fill"].map((name) => {
            const context = new OffscreenCanvas(1, 1).getContext("2d");
            context.fillStyle = getComputedStyle(element)[name];
            context.fillRect(0, 0, 1, 1);
            return [...context.getImageData(0, 0, 1, 1).data];
        })"""
    )
    return [
        colour
        for colour in colours
        if colour[3] > 0
        and 53 < Image.new("RGB", (1, 1), tuple(colour[:3])).convert("HSV").getpixel((0, 0))[0] < 117  # type: ignore[index]
        and max(colour[:3]) - min(colour[:3]) > 25
    ]


def test_an_example_is_answered_as_its_name_says(visit: Visits, server: TorchServe) -> None:
    examples = json.loads((EXAMPLES / "index.json").read_text())
    assert len(examples) >= 4
    for example in examples:
        result = ask(server, (EXAMPLES / example["file"]).read_bytes())
        is_right = result["prediction"]["code"] == example["tissue"]
        answered = {"right": is_right, "wrong": not is_right, "unlike": result["verdict"]["state"] == "unreliable"}
        assert answered[example["answer"]], example
    page = visit()
    page.get_by_role("button", name=examples[0]["title"]).click()
    wait_for_map(page)


def test_the_map_is_the_servers_and_the_model_view_is_the_canonical_tile(
    visit: Visits, server: TorchServe, tiles: Pixels, encode: Encode
) -> None:
    tile = encode(np.repeat(np.repeat(tiles[4], 8, 0), 8, 1))
    page = visit()
    choose(page, tile)
    wait_for_map(page)
    page.get_by_role("slider").fill("1")
    expected = ask(server, tile, explain="gradcam", **{**DRAWING, "alpha": "1"})["explanations"][0]
    overlay = decoded(expected["overlay"]).astype(int)
    assert np.abs(shown(page, overlay.shape[1]).astype(int) - overlay).mean() < 4
    page.get_by_role("slider").fill("0")
    page.get_by_role("button", name=re.compile("view, 28 px")).click()
    canonical = decoded(ask(server, tile, include="canonical")["canonical"]["image"])
    enlarged = np.asarray(Image.fromarray(canonical).resize((448, 448), Image.Resampling.NEAREST)).astype(int)
    assert np.abs(shown(page, 448).astype(int) - enlarged).mean() < 6


def decoded(text: str) -> Pixels:
    return np.asarray(Image.open(BytesIO(base64.b64decode(text))).convert("RGB"))


def shown(page: Page, size: int) -> Pixels:
    """The viewer's pixels."""
    source = page.locator(".viewer canvas").first.evaluate("canvas => canvas.toDataURL()")
    picture = Image.open(BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB")
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))


def test_a_pixel_map_can_be_read_and_says_how_it_was_drawn(visit: Visits, server: TorchServe) -> None:
    page = visit()
    choose(page, TILE)
    wait_for_map(page)
    page.get_by_role("button", name="Integrated gradients").click()
    wait_for_map(page, "integrated_gradients")
    expect(page.locator(".legend")).to_contain_text("clipped at the 99.5th percentile")
    expect(page.locator(".legend")).to_contain_text("smoothed")
    options = {"method": "integrated_gradients", **DRAWING, **PIXELS}
    explanation = ask(server, TILE.read_bytes(), "explanations", **options)["explanations"][0]
    strength = np.asarray(Image.open(BytesIO(base64.b64decode(explanation["heatmap"]))).convert("RGBA"))[..., 3]
    assert (strength > 25).mean() > 0.2


def test_every_contrast_is_signed_and_names_both_classes(visit: Visits, server: TorchServe) -> None:
    methods = "gradcam,occlusion,integrated_gradients,saliency"
    options = {"method": methods, "target": "STR", "contrast": "MUS", **DRAWING}
    explanations = ask(server, TILE.read_bytes(), "explanations", **options)["explanations"]
    assert [item["rendering"]["shows"] for item in explanations] == ["signed"] * 4
    page = visit()
    choose(page, TILE)
    wait_for_map(page)
    page.get_by_label("Evidence for").select_option("STR")
    page.get_by_label("compared with").select_option("MUS")
    expect(page.locator(".legend .ends")).to_have_text(re.compile("Smooth muscle.*Tumour stroma"))
    expect(page.locator(".legend")).to_contain_text("More evidence for")


def test_a_class_in_the_list_asks_for_its_map(visit: Visits) -> None:
    page = visit()
    choose(page, TILE)
    wait_for_map(page)
    page.locator(".bars [data-code=LYM]").click()
    expect(page.locator(".legend .ends")).to_contain_text("Lymphocytes")
    expect(page.get_by_label("Evidence for")).to_have_value("LYM")


def test_on_a_phone_the_verdict_is_in_view_and_announced(visit: Visits) -> None:
    page = visit(width=390, height=844)
    choose(page, TILE)
    verdict = page.locator("#verdict")
    expect(verdict).to_be_in_viewport(ratio=1)
    expect(verdict).to_be_focused()
    assert page.locator(".viewer canvas").first.bounding_box()["y"] < 844  # type: ignore[index]
    live = page.locator("[aria-live=polite]")
    expect(live).to_contain_text(verdict.inner_text())


HANDED_OVER = """([type, data]) => {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "handed.png", { type: "image/png" }));
    const options = { bubbles: true, cancelable: true, clipboardData: transfer, dataTransfer: transfer };
    const event = type === "paste" ? new ClipboardEvent(type, options) : new DragEvent(type, options);
    return !document.querySelector("footer, header").dispatchEvent(event);
}"""


@pytest.mark.parametrize(("way", "path"), [("paste", "/"), ("drop", "/model")])
def test_a_tile_can_be_pasted_and_dropped_anywhere(way: str, path: str, visit: Visits) -> None:
    page = visit(path)
    was_taken = page.evaluate(HANDED_OVER, [way, base64.b64encode(TILE.read_bytes()).decode()])
    # If the page does not cancel a drop, the browser opens the file.
    assert was_taken or way == "paste"
    expect(page.locator("#verdict")).to_be_visible()
    expect(page).to_have_url(re.compile("/$"))


def test_a_reload_keeps_the_tile_and_the_history_in_this_tab(visit: Visits, tiles: Pixels, encode: Encode) -> None:
    page = visit()
    for index in (0, 4):
        choose(page, encode(tiles[index]), f"{index}.png")
        wait_for_map(page)
        expect(page.locator("#verdict")).to_be_visible()
    headline = page.locator("#verdict").inner_text()
    page.reload()
    expect(page.locator("#verdict")).to_have_text(headline)
    expect(page.locator(".history li")).to_have_count(2)
    page.get_by_role("button", name="0.png").click()
    expect(page.get_by_role("button", name="0.png")).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="New tile").click()
    page.reload()
    expect(page.get_by_role("button", name="Choose a file")).to_be_visible()


def test_two_visitors_see_their_own_tiles(visit: Visits, by_state: dict[str, bytes]) -> None:
    first, second = visit(), visit()
    choose(first, by_state["unreliable"])
    choose(second, by_state["uncertain"])
    expect(first.locator(".card.verdict.unreliable")).to_be_visible()
    expect(second.locator(".card.verdict.uncertain")).to_be_visible()
    expect(first.locator(".history li")).to_have_count(0)


def test_several_files_are_all_classified(visit: Visits, tiles: Pixels, encode: Encode) -> None:
    page = visit()
    files = [{"name": f"{index}.png", "mimeType": "image/png", "buffer": encode(tiles[index])} for index in range(3)]
    page.locator("#file").set_input_files(files)  # type: ignore[arg-type]
    expect(page.locator(".history li")).to_have_count(3)
    for index in range(3):
        expect(page.locator(".history li").nth(index)).not_to_contain_text("…")


def test_a_new_tile_never_stands_beside_an_old_answer(visit: Visits, tiles: Pixels, encode: Encode) -> None:
    page = visit()
    choose(page, encode(tiles[0]))
    wait_for_map(page)
    page.route("**/predictions/**", lambda route: None)
    choose(page, encode(tiles[4]), "other.png")
    expect(page.locator(".card.verdict .skeleton")).to_be_visible()
    expect(page.locator("#verdict")).to_have_count(0)
    expect(page.locator("canvas[data-map]")).to_have_count(0)


@pytest.mark.parametrize(
    ("name", "content", "words", "action"),
    [
        ("notes.txt", b"not an image", "is not an image", "Choose another"),
        ("fake.png", b"\x89PNG\r\n\x1a\n but no more", "", "Choose another"),
        ("large.jpg", b"\xff" * (17 << 20), "the limit is 16", "Choose another"),
    ],
)
def test_a_file_that_cannot_be_used_says_why_in_the_one_place(
    name: str, content: bytes, words: str, action: str, visit: Visits
) -> None:
    page = visit()
    kind = "text/plain" if name.endswith("txt") else ""
    page.locator("#file").set_input_files({"name": name, "mimeType": kind, "buffer": content})
    message = page.locator("#message")
    expect(message).to_be_visible()
    expect(message).to_contain_text(words)
    expect(message.get_by_role("button", name=action)).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(1)


@pytest.mark.parametrize(("size", "words"), [((5000, 4000), "20 million pixels"), ((1500, 1200), "region of a slide")])
def test_the_centre_of_a_large_image_can_be_used(
    size: tuple[int, int], words: str, visit: Visits, server: TorchServe, encode: Encode
) -> None:
    tile = Image.open(TILE).convert("RGB").resize((224, 224))
    large = Image.new("RGB", size, (90, 60, 120))
    large.paste(tile, ((size[0] - 224) // 2, (size[1] - 224) // 2))
    page = visit()
    choose(page, encode(large), "region.png")
    expect(page.locator("#message")).to_contain_text(words)
    assert page.get_by_role("button", name="Send it as it is").count() == (words == "region of a slide")
    page.get_by_role("button", name="Use its centre").click()
    wait_for_map(page)
    expected = ask(server, encode(tile))["probabilities"]
    code = max(expected, key=lambda item: expected[item])
    expect(page.locator(f".bars [data-code={code}] .share")).to_have_text(percent(expected[code]))


def test_a_tiff_which_no_browser_shows_is_shown(visit: Visits, tiles: Pixels, encode: Encode) -> None:
    page = visit()
    choose(page, encode(tiles[0], "TIFF"), "tile.tif")
    wait_for_map(page)
    page.get_by_role("slider").fill("0")
    expected = np.asarray(Image.fromarray(tiles[0]).resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(shown(page, 64).astype(int) - expected).mean() < 8


def test_everything_can_be_done_by_keyboard(visit: Visits) -> None:
    page = visit()
    # Playwright intercepts file dialogues only some time after a listener is added.
    page.on("filechooser", lambda _: None)
    choose(page, TILE)
    wait_for_map(page)
    page.keyboard.press("3")
    wait_for_map(page, "integrated_gradients")
    page.keyboard.press("m")
    expect(page.locator("#model-view")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("-")
    expect(page.get_by_role("slider")).to_have_value("0.7")
    with_map = shown(page, 100)
    page.keyboard.down(" ")
    assert not np.array_equal(shown(page, 100), with_map)
    page.keyboard.up(" ")
    assert np.array_equal(shown(page, 100), with_map)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("compare methods")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    with page.expect_file_chooser():
        page.keyboard.press("n")
    page.keyboard.press("c")
    expect(page).to_have_url(re.compile("/compare"))


def test_the_wheel_enlarges_and_the_readout_has_the_value(visit: Visits) -> None:
    page = visit()
    choose(page, TILE)
    wait_for_map(page)
    before = shown(page, 100)
    box = page.locator(".viewer canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 3)
    expect(page.locator(".readout")).to_have_text(re.compile(r"[+-]?\d.* logit"))
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(100)
    assert np.abs(shown(page, 100).astype(int) - before).mean() > 1
    assert page.evaluate("window.scrollY") == 0


def test_the_report_is_one_file_with_everything_in_it(visit: Visits, server: TorchServe, tmp_path: Path) -> None:
    expected = ask(server, TILE.read_bytes())
    page = visit()
    choose(page, TILE)
    wait_for_map(page)
    page.get_by_role("button", name="Occlusion").click()
    wait_for_map(page, "occlusion")
    headline = page.locator("#verdict").inner_text()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download report").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.name == "tile-report.html"
    text = path.read_text()
    assert expected["model"]["digest"] in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    report = visit.contexts[-1].new_page()
    report.goto(path.as_uri())
    expect(report.locator("h1")).to_have_text(headline)
    expect(report.locator("body")).to_contain_text("not a diagnosis")
    expect(report.locator("table tr")).to_have_count(10)
    # The tile, the model's view, Grad-CAM and occlusion.
    assert report.locator("img").evaluate_all("images => images.map((image) => image.naturalWidth)") == [
        448,
        28,
        448,
        448,
    ]


def test_the_copied_command_asks_the_same(visit: Visits) -> None:
    page = visit()
    choose(page, TILE)
    wait_for_map(page)
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.locator("#message")).to_contain_text("clipboard")
    command = page.evaluate("navigator.clipboard.readText()")
    answer = subprocess.run(["bash", "-c", command], cwd=TILE.parent, capture_output=True, text=True, timeout=60).stdout
    code = json.loads(answer)["prediction"]["code"]
    assert page.locator(".bars button").first.get_attribute("data-code") == code
