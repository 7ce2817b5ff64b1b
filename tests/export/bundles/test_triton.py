"""Triton's bundle is a model repository whose configurations describe its ONNX files."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from export.bundles.source import Source
from handler.classes import CODES
from handler.model.checkpoint import file_digest
from serving.gateway.payload import MAX_IMAGES
from tests.conftest import Pixels
from tests.support.clients import ask_through

CLASSIFYING, EXPLAINING = "pathmnist", "pathmnist_explain"
TYPES = {"TYPE_UINT8": "tensor(uint8)", "TYPE_INT64": "tensor(int64)", "TYPE_FP32": "tensor(float)"}
Tensors = dict[str, tuple[str, list[int]]]


@pytest.fixture(scope="module")
def configs(bundles: Path) -> dict[str, Any]:
    """The configurations by the name of their folder, read with Triton's schema."""
    names = (CLASSIFYING, EXPLAINING)
    read: Any = ask_through("triton_config.py", *(bundles / "triton" / name / "config.pbtxt" for name in names))
    return dict(zip(names, read, strict=True))


@pytest.fixture(scope="module")
def sessions(bundles: Path) -> dict[str, onnxruntime.InferenceSession]:
    return {
        name: onnxruntime.InferenceSession(
            bundles / "triton" / name / "1" / "model.onnx", providers=["CPUExecutionProvider"]
        )
        for name in (CLASSIFYING, EXPLAINING)
    }


def declared(config: dict[str, Any], kind: str) -> Tensors:
    """Type and shape of the model's tensors as Triton derives them: with the axis of the batch, and `reshape`."""
    batch = [-1] if config.get("max_batch_size") else []
    return {
        item["name"]: (
            TYPES[item["data_type"]],
            batch + [int(axis) for axis in item.get("reshape", item).get("shape" if "reshape" in item else "dims", [])],
        )
        for item in config[kind]
    }


def actual(items: list[Any]) -> Tensors:
    return {item.name: (item.type, [axis if isinstance(axis, int) else -1 for axis in item.shape]) for item in items}


@pytest.mark.parametrize("name", [CLASSIFYING, EXPLAINING])
def test_a_configuration_describes_its_file(
    name: str, configs: dict[str, Any], sessions: dict[str, onnxruntime.InferenceSession]
) -> None:
    config, session = configs[name], sessions[name]
    assert (config["name"], config["backend"]) == (name, "onnxruntime")
    assert declared(config, "input") == actual(session.get_inputs())
    assert declared(config, "output") == actual(session.get_outputs())


@pytest.mark.parametrize("name", [CLASSIFYING, EXPLAINING])
def test_triton_could_load_every_tensor(name: str, configs: dict[str, Any]) -> None:
    """Two rules of Triton's that its schema does not hold: an axis at least, and no scalars without batches."""
    for item in (*configs[name]["input"], *configs[name]["output"]):
        assert len(item["dims"]) > 0
        assert "reshape" not in item or configs[name]["max_batch_size"] > 0


def test_only_requests_for_classes_are_joined(configs: dict[str, Any]) -> None:
    assert configs[CLASSIFYING]["max_batch_size"] == MAX_IMAGES
    assert "dynamic_batching" in configs[CLASSIFYING]
    assert "max_batch_size" not in configs[EXPLAINING]
    assert "dynamic_batching" not in configs[EXPLAINING]


def test_probabilities_have_labels(configs: dict[str, Any], bundles: Path) -> None:
    labelled = {
        item["name"]: item["label_filename"] for item in configs[CLASSIFYING]["output"] if "label_filename" in item
    }
    assert labelled == {"probabilities": "labels.txt"}
    assert (bundles / "triton" / CLASSIFYING / "labels.txt").read_text().split() == list(CODES)


def test_the_classifying_file_is_the_stores(bundles: Path, source: Source) -> None:
    assert file_digest(bundles / "triton" / CLASSIFYING / "1" / "model.onnx") == file_digest(source.classifying)


def test_the_explaining_file_gives_the_stores_maps(
    sessions: dict[str, onnxruntime.InferenceSession], source: Source, tiles: Pixels
) -> None:
    feeds = {"image": tiles[:1], "target": np.array([8]), "baseline": np.zeros(3, np.float32)}
    original = onnxruntime.InferenceSession(source.explaining, providers=["CPUExecutionProvider"])
    expected = original.run(None, {**feeds, "n_steps": np.array(2)})
    found = sessions[EXPLAINING].run(None, {**feeds, "n_steps": np.array([2])})
    for item, value in zip(found, expected, strict=True):
        assert np.array_equal(item, value)
