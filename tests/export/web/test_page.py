"""The static page gives the server's answers and maps, in real Chromium, and sends nothing anywhere."""

import base64
import csv
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from export.predict import main as predict
from handler.api.errors import RequestError
from handler.api.image import ImageLimits, decode_image
from handler.api.render import Canvas, Rendering, strength_of
from handler.api.service import Service
from handler.classes import CODES
from handler.classifier import Classifier
from handler.model.network import class_activation
from tests.conftest import Pixels
from tests.export.web.conftest import FOLDER, Site, Visit, new_visitor, wait_until_ready
from tests.support.answers import answer
from tests.support.icc_files import PROPHOTO, gamma, rgb_profile
from tests.support.png_files import chunk
from training.data import PathMNIST

pytestmark = pytest.mark.browser

# Weights in half precision move a logit, which reaches 50, and the 49 cells of its map by less than this.
LOGIT_TOLERANCE, CELL_TOLERANCE, PROBABILITY_TOLERANCE = 0.02, 1e-3, 2e-3
# The page measures neither the picture nor its field of view.
OF_THE_COMMAND_ALONE = ("fit", "fit_reasons", "field_microns")
# The relative error of a gradient map of noise, as in test_predict.py.
MAP_ERROR = 0.05
# As without HTTPS.
WITHOUT_SERVICE_WORKER = "delete Navigator.prototype.serviceWorker"
# A module of the page, and a file from base64.
PREPARE = """async () => {
    window.load = (name) => import(new URL(name, location).href);
    window.fileOf = (data) => new Blob([Uint8Array.from(atob(data), (character) => character.charCodeAt(0))]);
    window.data = await (await fetch("model.json")).json();
    const { Client } = await load("client.js");
    window.client = new Client(() => {});
    await client.open();
}"""


@pytest.fixture(scope="module")
def modules(visit: Visit) -> Page:
    """The page with its modules at hand, and a model for the test alone."""
    visit.page.evaluate(PREPARE)
    return visit.page


def as_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def classify(page: Page, file: bytes) -> dict[str, Any]:
    """The page's answer with the class activation maps `[9, 7, 7]`."""
    script = """async (data) => {
        const { answerOf } = await load("answer.js");
        const { outputs, notes } = await client.classify(fileOf(data));
        return { ...answerOf(outputs, window.data), notes, logits: [...outputs.logits], cam: [...outputs.cam] };
    }"""
    found: dict[str, Any] = page.evaluate(script, as_text(file))
    return found


def assert_same_answer(found: dict[str, Any], file: bytes, service: Service, classifier: Classifier) -> None:
    expected = answer(service, {"body": file, "coverage": "0.95"})
    assert found["logits"] == pytest.approx(expected["logits"], abs=LOGIT_TOLERANCE)
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=PROBABILITY_TOLERANCE)
    assert found["prediction"]["code"] == expected["prediction"]["code"]
    assert found["model"] == {name: expected["model"][name] for name in found["model"]}
    assert found["ood_score"] == pytest.approx(expected["ood_score"], rel=0.02)
    assert found["verdict"]["tumour_share"] == pytest.approx(expected["verdict"]["tumour_share"], abs=2e-3)
    for name in ("state", "classes", "tumour_related", "tumour_threshold", "test_tiles", "share_right"):
        assert found["verdict"][name] == expected["verdict"][name]
    for name in ("prediction_set", "in_distribution", "risk"):
        assert found[name] == expected[name]
    forward = classifier.engine.forward([decode_image(file, ImageLimits()).pixels])
    (maps,) = class_activation(classifier.model.network, forward.features).numpy()
    cells = np.array(found["cam"]).reshape(9, 7, 7)
    assert np.abs(cells - maps).max() < CELL_TOLERANCE


def test_generated_tiles_get_the_servers_classes_and_maps(
    modules: Page, tiles: Pixels, service: Service, classifier: Classifier
) -> None:
    for tile in tiles[:4]:
        file = png(tile)
        assert_same_answer(classify(modules, file), file, service, classifier)


def test_real_tiles_get_the_servers_classes_and_maps(
    modules: Page, real_data: PathMNIST, shared: Path, service: Service, classifier: Classifier
) -> None:
    originals = sorted((shared / "originals_224").glob("*.png"))[::8]
    for file in [*map(png, real_data.test.spread(18)), *(path.read_bytes() for path in originals)]:
        assert_same_answer(classify(modules, file), file, service, classifier)


def encodings(tile: Image.Image) -> dict[str, bytes]:
    """The same tile in the forms that a browser might read as another picture."""
    files = {}

    def save(name: str, image: Image.Image, file_format: str, **options: Any) -> None:
        file = io.BytesIO()
        image.save(file, file_format, **options)
        files[name] = file.getvalue()

    clear = tile.copy()
    clear.putalpha(Image.fromarray(np.arange(56 * 56, dtype=np.uint8).reshape(56, 56)))
    turned = Image.Exif()
    turned[0x112] = 6
    grey16 = Image.fromarray((np.asarray(tile.convert("L")).astype(np.uint16) << 8) + 200)
    save("plain.png", tile, "PNG")
    save("palette.png", tile.quantize(99), "PNG")
    save("clear.png", clear, "PNG")
    save("grey16.png", grey16, "PNG")
    save("plain.bmp", tile, "BMP")
    save("lossless.webp", tile, "WEBP", lossless=True)
    save("lossy.webp", tile, "WEBP", quality=80)
    save("plain.jpg", tile, "JPEG", quality=80)
    save("turned.jpg", tile.crop((0, 0, 56, 48)), "JPEG", quality=90, exif=turned)
    save("profile.png", tile, "PNG", icc_profile=rgb_profile(PROPHOTO, gamma(1.8)))
    save("profile.jpg", tile, "JPEG", icc_profile=rgb_profile(PROPHOTO, gamma(1.8)))
    plain = files["plain.png"]
    files["gamma.png"] = plain[:33] + chunk(b"gAMA", struct.pack(">I", 100_000)) + plain[33:]
    return files


def refused(tile: Image.Image) -> dict[str, bytes]:
    """Files by the code of their refusal."""
    files = {"image_unreadable": b"This is no image, but it is longer than a header."}
    clear = tile.copy()
    clear.putalpha(0)
    for code, image, file_format, options in (
        ("image_transparent", clear, "PNG", {}),
        ("image_too_small", tile.resize((15, 15)), "PNG", {}),
        ("image_animated", tile, "PNG", {"save_all": True, "append_images": [tile.rotate(90)]}),
        ("image_mode_unsupported", tile.convert("CMYK"), "JPEG", {}),
        ("image_mode_unsupported, TIFF", tile, "TIFF", {}),
    ):
        file = io.BytesIO()
        image.save(file, file_format, **options)
        files[code] = file.getvalue()
    files["image_corrupt"] = png(np.asarray(tile))[:-2000]
    return files


@pytest.fixture(scope="module")
def tile(tiles: Pixels) -> Image.Image:
    return Image.fromarray(tiles[3]).resize((56, 56), Image.Resampling.BICUBIC)


def test_a_file_is_decoded_to_the_servers_pixels(modules: Page, tile: Image.Image) -> None:
    script = """async (data) => {
        const { pixels, width, height, notes } = await (await load("decode.js")).decode(fileOf(data));
        return { pixels: [...pixels], shape: [height, width, 3], notes };
    }"""
    for name, file in encodings(tile).items():
        found = modules.evaluate(script, as_text(file))
        pixels = np.array(found["pixels"], dtype=int).reshape(found["shape"])
        expected = decode_image(file, ImageLimits()).pixels
        assert pixels.shape == expected.shape, name
        is_converted = "profile" in name or "gamma" in name
        assert np.abs(pixels - expected).max() <= (1 if is_converted else 0), name
        assert is_converted == any("colour space" in note for note in found["notes"]), name


def test_a_file_that_the_browser_would_misread_is_refused(modules: Page, tile: Image.Image) -> None:
    script = "(data) => client.classify(fileOf(data)).then(() => null, (error) => [error.code, error.message])"
    for code, file in refused(tile).items():
        found, message = modules.evaluate(script, as_text(file))
        assert found == code.partition(",")[0], message
        # The server reads some of these. Where it does not, it gives the same code, or says that the file is cut.
        try:
            decode_image(file, ImageLimits())
        except RequestError as error:
            assert error.code in (found, "image_truncated")
        else:
            assert "use the server" in message


@pytest.fixture(scope="module")
def noise() -> Pixels:
    """A tile without near-equal neighbours, between which rounding would decide."""
    return np.random.default_rng(1).integers(0, 256, (28, 28, 3), dtype=np.uint8)


def test_saliency_is_the_servers(modules: Page, noise: Pixels, classifier: Classifier) -> None:
    script = "async ([data, target]) => [...(await client.saliency(fileOf(data), target))]"
    for target in (8, 5):
        (expected,) = classifier.explain([noise], "saliency", target)
        values = expected.attribution
        found = np.array(modules.evaluate(script, [as_text(png(noise)), target])).reshape(values.shape)
        assert np.linalg.norm(found - values) < MAP_ERROR * np.linalg.norm(values)


@pytest.mark.parametrize(
    ("shape", "display", "sigma", "percentile"),
    [((7, 7), "positive", 0, 100), ((7, 7), "signed", 0, 100), ((224, 224), "magnitude", 2.5, 99.5)],
)
def test_a_map_is_drawn_as_the_server_draws_it(
    shape: tuple[int, int], display: Any, sigma: float, percentile: float, modules: Page
) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    script = """async ([values, side, display, sigma, percentile]) => {
        const { drawMap } = await load("maps.js");
        const { pixelsOf } = await load("pictures.js");
        const question = { method: "gradcam", target: "TUM", contrast: "" };
        const grid = { values: new Float32Array(values), side };
        const map = drawMap(grid, { question, unit: "logit", display, sigma, percentile });
        return { high: map.high, pixels: [...pixelsOf(map.picture)] };
    }"""
    found = modules.evaluate(script, [values.ravel().tolist(), shape[0], display, sigma, percentile])
    canvas = Canvas(np.zeros((224, 224, 3), np.uint8), 224)
    rendering = Rendering(colormap="evidence", size=448, sigma=sigma, percentile=percentile)
    expected = canvas.draw(strength_of(values, display), display, rendering)
    assert found["high"] == pytest.approx(expected.high, rel=1e-4)
    pixels = np.array(found["pixels"], dtype=int).reshape(448, 448, 4)
    same = np.asarray(expected.heatmap.convert("RGBA"), dtype=int)
    assert np.abs(pixels[..., 3] - same[..., 3]).max() <= 2
    # Where a map is faint, the canvas rounds its colour.
    is_strong = same[..., 3] > 40
    assert np.abs(pixels - same)[is_strong].max() <= 4


def test_nine_maps_share_a_scale_and_a_contrast_is_a_difference(visit: Visit, tile: Image.Image) -> None:
    page = visit.page
    page.locator("#files").set_input_files({"name": "tile.png", "mimeType": "", "buffer": png(np.asarray(tile))})
    expect(page.locator(".nine button")).to_have_count(9)
    expect(page.locator("canvas[data-map=gradcam]")).to_be_visible()
    expect(page.locator(".legend .scale")).not_to_have_class("scale both")
    page.get_by_role("button", name="Tumour stroma").last.click()
    page.get_by_label("compared with").select_option("MUS")
    expect(page.locator(".legend .scale")).to_have_class("scale both")
    expect(page.locator(".legend")).to_contain_text("evidence for")
    page.get_by_role("button", name="Saliency").click()
    expect(page.locator("canvas[data-map=saliency]")).to_be_visible()
    expect(page.locator(".legend")).to_contain_text("clipped at the 99.5th percentile")
    assert visit.errors == []


@pytest.fixture(scope="module")
def folder(tiles: Pixels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder in it, six tiles, a TIFF and a text."""
    folder = tmp_path_factory.mktemp("dropped") / "tiles"
    (folder / "inner").mkdir(parents=True)
    for index, tile in enumerate(tiles[:6]):
        name = f"{index}, a.png" if index < 3 else f"inner/{index}.jpg"
        Image.fromarray(tile).resize((64, 64)).save(folder / name)
    Image.fromarray(tiles[6]).save(folder / "inner" / "tile.tif")
    (folder / "notes.txt").write_text("no image")
    return folder


def drop(page: Page, path: Path) -> None:
    """Drop a file or a folder of this machine on the page, as the desktop does."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 400, "data": data})


def download(page: Page) -> list[dict[str, str]]:
    """The rows of the CSV file."""
    button = page.get_by_role("button", name="Download CSV")
    expect(button).to_be_enabled()
    with page.expect_download() as saved:
        button.click()
    return list(csv.DictReader(io.StringIO(saved.value.path().read_text())))


def test_a_dropped_folder_becomes_a_table_with_the_answers_of_the_python_command(
    visit: Visit, folder: Path, model_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = visit.page
    page.reload()
    wait_until_ready(page)
    drop(page, folder)
    expect(page.locator("#progress")).to_contain_text("7 of 7 tiles done")
    expect(page.locator("#progress")).to_contain_text("1 refused")
    rows = download(page)
    names = [row["file"] for row in rows]
    assert names == [
        *(f"tiles/{index}, a.png" for index in range(3)),
        *(f"tiles/inner/{i}.jpg" for i in (3, 4, 5)),
        "tiles/inner/tile.tif",
    ]
    assert rows[-1]["error"] == "image_mode_unsupported"
    files = [str(folder.parent / name) for name in names[:-1]]
    capsys.readouterr()
    assert predict(["--models", str(model_store), "--format", "csv", "--coverage", "0.95", *files]) == 0
    expected = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0]) == [name for name in expected[0] if name not in OF_THE_COMMAND_ALONE]
    for row, same in zip(rows, expected, strict=False):
        for name in ("code", "verdict", "prediction_set", "risk"):
            assert row[name] == same[name]
        assert row["in_distribution"] == same["in_distribution"].lower()
        for name in ("probability", "tumour_share", *(f"p_{code}" for code in CODES)):
            assert float(row[name]) == pytest.approx(float(same[name]), abs=PROBABILITY_TOLERANCE)
    assert visit.errors == []


def test_the_table_is_used_with_the_keyboard_and_announced(visit: Visit) -> None:
    page = visit.page
    button = page.locator("tbody button").nth(4)
    name = button.inner_text()
    button.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#result > section")).to_have_attribute("aria-label", f"Result for {name}")
    expect(page.locator("#announcement")).to_contain_text(name)
    expect(page.locator("#verdict")).to_be_focused()


def test_no_request_leaves_the_folder(visit: Visit, site: Site) -> None:
    assert len(site.requests) > 20
    prefix = f"GET {site.url}"
    assert [request for request in site.requests if not request.startswith(prefix)] == []


def test_the_page_and_its_worker_may_not_contact_another_host(modules: Page, site: Site) -> None:
    before = len(site.requests)
    script = "fetch('http://192.0.2.1/beacon').then(() => 'sent', (error) => error.name)"
    assert modules.evaluate(script) == "TypeError"
    # The other workers are ONNX Runtime's threads, which wait for work and run nothing else.
    own = [worker for worker in modules.workers if worker.url == f"{site.url}worker.js"]
    assert own
    assert {worker.evaluate(script) for worker in own} == {"TypeError"}
    assert len(site.requests) == before


def test_after_the_first_load_the_page_works_without_the_server(visit: Visit, site: Site, tile: Image.Image) -> None:
    page, port = visit.page, int(site.origin.rpartition(":")[2])
    visit.errors.clear()
    site.stop()
    try:
        page.reload()
        wait_until_ready(page)
        expect(page.locator("#state")).to_contain_text("works offline")
        page.get_by_role("button", name="Clear case: tumour").click()
        expect(page.locator("#verdict")).to_have_text("Tumour epithelium")
        page.get_by_role("button", name="Saliency").click()
        expect(page.locator("canvas[data-map=saliency]")).to_be_visible()
    finally:
        site.start(port)
    assert visit.errors == []


def test_webassembly_uses_threads_on_a_server_without_headers(visit: Visit) -> None:
    assert visit.page.evaluate("crossOriginIsolated")
    if visit.page.evaluate("navigator.hardwareConcurrency") > 1:
        expect(visit.page.locator("#state")).to_contain_text("threads")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_a_phone(scheme: Any, visit: Visit, folder: Path) -> None:
    page = visit.page
    page.emulate_media(color_scheme=scheme)
    if not page.locator("tbody").count():
        drop(page, folder)
    expect(page.locator("canvas[data-map]")).to_be_visible()
    for width, height in ((1440, 900), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = [(item["id"], item["nodes"][0]["html"]) for item in Axe().run(page).response["violations"]]
        assert found == [], (scheme, width)
    page.set_viewport_size({"width": 1440, "height": 900})


def test_a_browser_that_computes_otherwise_gives_no_answers(browser: Browser, site: Site) -> None:
    visitor = new_visitor(browser, site)
    visitor.add_init_script(WITHOUT_SERVICE_WORKER)
    page = visitor.new_page()

    def falsify(route: Any) -> None:
        data = json.loads((site.root / FOLDER / "model.json").read_text())
        data["golden"]["logits"][0] += 1
        route.fulfill(json=data)

    visitor.route("**/model.json", falsify)
    page.goto(site.url)
    expect(page.locator("#message")).to_contain_text("stored answer for the stored tile")
    expect(page.locator("#state[data-state=down]")).to_be_visible()
    visitor.close()


def test_without_a_service_worker_the_page_still_answers(browser: Browser, site: Site) -> None:
    visitor = new_visitor(browser, site)
    visitor.add_init_script(WITHOUT_SERVICE_WORKER)
    page = visitor.new_page()
    page.goto(site.url)
    wait_until_ready(page)
    expect(page.locator("#state")).to_have_text("WebAssembly; needs the network to load")
    page.get_by_role("button", name="Unlike the training tiles").click()
    expect(page.locator("#verdict")).to_have_text("Unlike the training tiles")
    visitor.close()
