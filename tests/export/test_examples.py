"""Each example gives the server's answer, or refuses the file."""

import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.chromium import chromium_page, link, serve_folder
from export.npm import PACKAGES, MissingRuntimeError
from export.runtimes import FOLDER, node_program, web_version
from handler.api.image import ImageLimits, decode_image
from handler.classes import CODES
from handler.model.checkpoint import Model
from handler.model.engine import Engine
from serving.supervisor import ROOT
from tests.support.icc_files import PROPHOTO, gamma, rgb_profile
from tests.support.png_files import chunk

EXAMPLES = FOLDER / "examples"
PYTHON = sorted(path.name for path in EXAMPLES.glob("classify_*.py"))
TILE = ROOT / "docs" / "tile.png"
REFUSAL = "This example reads one"
MISREAD = ("grey16.png", "half_clear.png", "profile.png", "gamma.png", "key.png")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tile in each of the forms that are easily read as another picture."""
    folder = tmp_path_factory.mktemp("files")
    tile = Image.open(TILE).convert("RGB").resize((56, 56))
    grey, half_clear = tile.convert("L"), tile.copy()
    alpha = np.full((tile.height, tile.width), 255, np.uint8)
    alpha[:, : tile.width // 2] = 0
    half_clear.putalpha(Image.fromarray(alpha))
    turned = Image.Exif()
    turned[0x112] = 6
    icc = rgb_profile(PROPHOTO, gamma(1.8))
    grey16 = Image.fromarray((np.asarray(grey).astype(np.uint16) << 8) + 200)
    tile.save(folder / "plain.png")
    tile.crop((0, 0, tile.width, tile.height // 2)).save(folder / "turned.jpg", quality=95, exif=turned)
    grey16.save(folder / "grey16.png")
    grey16.save(folder / "grey16.tif")
    half_clear.save(folder / "half_clear.png")
    tile.save(folder / "profile.png", icc_profile=icc)
    tile.save(folder / "profile.jpg", icc_profile=icc, quality=95)
    grey.save(folder / "key.png", transparency=int(np.median(np.asarray(grey))))
    plain = (folder / "plain.png").read_bytes()
    for name, chunks in (
        ("gamma.png", [chunk(b"gAMA", struct.pack(">I", 100_000))]),
        ("stated_srgb.png", [chunk(b"sRGB", b"\0"), chunk(b"gAMA", struct.pack(">I", 45_455))]),
    ):
        (folder / name).write_bytes(plain[:33] + b"".join(chunks) + plain[33:])
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def servers(model: Model, files: dict[str, Path]) -> Callable[[str], tuple[str, float]]:
    """The server's class and probability for a file, by its name."""

    def answer(name: str) -> tuple[str, float]:
        image = decode_image(files[name].read_bytes(), ImageLimits()).pixels
        logits = Engine(model, torch.device("cpu")).forward([image]).logits
        assert model.confidence is not None
        probabilities = (logits[0] / model.confidence.temperature).softmax(dim=0)
        return CODES[int(probabilities.argmax())], float(probabilities.max())

    return answer


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def assert_same(line: str, answer: tuple[str, float], tolerance: float = 1e-4) -> None:
    code, probability = line.split()
    assert code == answer[0]
    assert float(probability) == pytest.approx(answer[1], abs=tolerance)


@pytest.mark.parametrize("file", ["plain.png", "turned.jpg", "stated_srgb.png"])
@pytest.mark.parametrize("name", PYTHON)
def test_a_python_example_gives_the_servers_answer(
    name: str, file: str, files: dict[str, Path], servers: Callable[[str], tuple[str, float]], model_store: Path
) -> None:
    finished = run(sys.executable, EXAMPLES / name, model_store / "pathmnist.onnx", files[file])
    assert_same(finished.stdout, servers(file))


@pytest.mark.parametrize("name", PYTHON)
def test_a_python_example_refuses_what_it_would_misread(name: str, files: dict[str, Path], model_store: Path) -> None:
    others = [*MISREAD, "grey16.tif", "profile.jpg"]
    command = (sys.executable, EXAMPLES / name, model_store / "pathmnist.onnx")
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda file: run(*command, files[file]), others))
    for file, finished in zip(others, answers, strict=True):
        assert finished.returncode != 0, file
        assert finished.stdout == ""
        assert REFUSAL in finished.stderr


@pytest.fixture(scope="module")
def node() -> str:
    try:
        web_version()
        return node_program()
    except MissingRuntimeError as error:
        pytest.skip(str(error))


def test_the_node_example_gives_the_servers_answer_or_refuses(
    node: str, files: dict[str, Path], servers: Callable[[str], tuple[str, float]], model_store: Path
) -> None:
    script, network = EXAMPLES / "classify_node.mjs", model_store / "pathmnist.onnx"
    for file in ("plain.png", "stated_srgb.png"):
        assert_same(run(node, script, network, files[file]).stdout, servers(file))
    for file in MISREAD:
        finished = run(node, script, network, files[file])
        assert (finished.returncode, finished.stdout) == (1, ""), file
        assert REFUSAL in finished.stderr


def test_the_browser_example_gives_the_servers_answer_or_refuses(
    files: dict[str, Path], servers: Callable[[str], tuple[str, float]], model_store: Path, tmp_path: Path
) -> None:
    try:
        web_version()
        link(
            tmp_path,
            **{
                "index.html": EXAMPLES / "classify_browser.html",
                "pathmnist.onnx": model_store / "pathmnist.onnx",
                "dist": PACKAGES / "onnxruntime-web" / "dist",
            },
        )
        with serve_folder(tmp_path) as address, chromium_page() as page:
            page.goto(f"{address}/index.html")
            page.wait_for_function("document.querySelector('input').onchange !== null", timeout=60_000)

            def ask(file: Path) -> str:
                page.set_input_files("input", file)
                page.wait_for_function("document.querySelector('output').textContent !== ''", timeout=60_000)
                line = page.text_content("output")
                assert line is not None
                return line

            assert_same(ask(files["plain.png"]), servers("plain.png"))
            # Chromium rounds 16 bits and colours, and decodes JPEG, in its own way: a grey level more or less.
            for file in (*MISREAD, "turned.jpg", "profile.jpg"):
                assert_same(ask(files[file]), servers(file), tolerance=0.03)
            assert "cannot read" in ask(files["grey16.tif"])
    except MissingRuntimeError as error:
        pytest.skip(str(error))
