"""OpenVINO's bundle loads as its model server would load it, and gives ONNX Runtime's answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest

from export.bundles.source import Source
from tests.conftest import Pixels

NAMES = ["pathmnist", "pathmnist_explain"]


@pytest.fixture(scope="module")
def models(bundles: Path) -> dict[str, Any]:
    """What `config.json` says, compiled with the settings that it gives."""
    folder = bundles / "openvino"
    entries = [entry["config"] for entry in json.loads((folder / "config.json").read_text())["model_config_list"]]
    core = openvino.Core()
    return {
        entry["name"]: core.compile_model(
            folder / entry["base_path"] / "1" / "model.xml", "CPU", entry["plugin_config"]
        )
        for entry in entries
    }


def onnx_outputs(file: Path, feeds: dict[str, Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


@pytest.mark.parametrize("side", [28, 60])
def test_the_classifying_model_gives_the_onnx_files_answers(side: int, models: dict[str, Any], source: Source) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, side, side + 3, 3), dtype=np.uint8)
    expected = onnx_outputs(source.classifying, {"image": images})
    found = models["pathmnist"]({"image": images})
    for name, value in zip(("logits", "probabilities", "cam", "embedding"), expected, strict=False):
        assert np.allclose(found[name], value, atol=1e-4), name
    assert np.allclose(found["ood_score"], expected[-1], rtol=1e-3)


def test_the_explaining_model_gives_the_onnx_files_maps(models: dict[str, Any], source: Source, tiles: Pixels) -> None:
    feeds = {
        "image": tiles[:2],
        "target": np.array([0, 8]),
        "n_steps": np.array(2),
        "baseline": np.zeros(3, np.float32),
    }
    expected = onnx_outputs(source.explaining, feeds)
    found = models["pathmnist_explain"](feeds)
    assert np.allclose(found["logits"], expected[0], atol=1e-4)
    for name, value in zip(("saliency", "integrated_gradients"), expected[1:3], strict=True):
        # Rounding decides which of near-equal maxima receives a gradient (docs/runtimes.md).
        assert np.linalg.norm(found[name] - value) < 0.05 * np.linalg.norm(value), name


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_in_float32(name: str, bundles: Path) -> None:
    model = openvino.Core().read_model(bundles / "openvino" / name / "1" / "model.xml")
    types = {node.get_element_type().get_type_name() for node in model.get_ops() if node.get_type_name() == "Constant"}
    assert "f32" in types
    assert not types & {"f16", "bf16", "f64"}
