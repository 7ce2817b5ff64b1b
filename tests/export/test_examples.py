"""Each example runs, and says what PyTorch says."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from export.runtimes import FOLDER, node_program, web_version
from export.web import PACKAGES, MissingRuntimeError, chromium_page, link, serve_folder
from handler.classes import CODES
from handler.model.checkpoint import Model
from handler.model.engine import Engine
from serving.supervisor import ROOT

EXAMPLES = FOLDER / "examples"
TILE = ROOT / "docs" / "tile.png"


def assert_pytorchs(line: str, model: Model) -> None:
    """The line is the code of PyTorch's class and its probability."""
    code, probability = line.split()
    image = np.array(Image.open(TILE).convert("RGB"))
    logits = Engine(model, torch.device("cpu")).forward([image]).logits
    assert model.confidence is not None
    probabilities = (logits[0] / model.confidence.temperature).softmax(dim=0)
    assert code == CODES[int(probabilities.argmax())]
    assert float(probability) == pytest.approx(float(probabilities.max()), abs=1e-4)


def run(*command: str | Path) -> str:
    finished = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    return finished.stdout


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("classify_*.py")))
def test_a_python_example(name: str, model: Model, model_store: Path) -> None:
    assert_pytorchs(run(sys.executable, EXAMPLES / name, model_store / "pathmnist.onnx", TILE), model)


def test_the_node_example(model: Model, model_store: Path) -> None:
    try:
        web_version()
        program = node_program()
    except MissingRuntimeError as error:
        pytest.skip(str(error))
    assert_pytorchs(run(program, EXAMPLES / "classify_node.mjs", model_store / "pathmnist.onnx", TILE), model)


def test_the_browser_example(model: Model, model_store: Path, tmp_path: Path) -> None:
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
            page.set_input_files("input", TILE)
            page.wait_for_function("document.querySelector('output').textContent !== ''", timeout=60_000)
            line = page.text_content("output")
    except MissingRuntimeError as error:
        pytest.skip(str(error))
    assert line is not None
    assert_pytorchs(line, model)
