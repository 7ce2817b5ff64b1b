"""The graphs for a browser share their weights, and half precision hardly moves an answer."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from export.compress import open_session
from export.web.agreement import compare, outputs_of
from export.web.graphs import CLASSIFYING, EXPLAINING, WEIGHTS, write_graphs
from tests.conftest import Pixels


@pytest.fixture(scope="module")
def graphs(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    write_graphs(model_store / "pathmnist.onnx", model_store / "pathmnist_explain.onnx", folder)
    return folder


def test_both_graphs_are_valid_and_read_the_same_weights(graphs: Path, model_store: Path) -> None:
    for name in (CLASSIFYING, EXPLAINING):
        onnx.checker.check_model(str(graphs / name), full_check=True)
        locations = {
            entry.value
            for tensor in onnx.load(graphs / name, load_external_data=False).graph.initializer
            for entry in tensor.external_data
            if entry.key == "location"
        }
        assert locations == {WEIGHTS}
    sources = sum((model_store / name).stat().st_size for name in ("pathmnist.onnx", "pathmnist_explain.onnx"))
    assert sum(path.stat().st_size for path in graphs.iterdir()) < 0.3 * sources


def test_classes_are_those_of_the_exported_file_and_maps_nearly(graphs: Path, model_store: Path, tiles: Pixels) -> None:
    figures = compare(outputs_of(graphs / CLASSIFYING, tiles), outputs_of(model_store / "pathmnist.onnx", tiles))
    assert figures["top1_agreement"] == 1
    assert figures["max_map_difference"] < 1e-3
    assert figures["map_error"]["max"] < 0.005


def test_saliency_of_noise_is_nearly_the_exported_files(graphs: Path, model_store: Path) -> None:
    feed = {
        "image": np.random.default_rng(0).integers(0, 256, (1, 28, 28, 3), dtype=np.uint8),
        "target": np.array([8]),
        "n_steps": np.array(0),
        "baseline": np.zeros(3, np.float32),
    }
    (found,), (expected,) = (
        open_session(path).run(["saliency"], feed)
        for path in (graphs / EXPLAINING, model_store / "pathmnist_explain.onnx")
    )
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_graphs_of_different_weights_are_refused(model_store: Path, tmp_path: Path) -> None:
    other = onnx.load(model_store / "pathmnist_explain.onnx")
    weights = next(tensor for tensor in other.graph.initializer if tensor.name == "network.layer4.1.conv2.weight")
    values = onnx.numpy_helper.to_array(weights)
    weights.CopyFrom(onnx.numpy_helper.from_array(2 * values, weights.name))
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="different weights"):
        write_graphs(model_store / "pathmnist.onnx", tmp_path / "other.onnx", tmp_path)
