"""The explaining graph computes the right maps, and every runtime computes the same."""

import json
import subprocess
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import openvino
import pytest
import torch

from export.attribution import MAPS, compare, map_errors
from export.explanation import OUTPUTS, ExplanationGraph
from export.npm import MissingRuntimeError
from export.runtimes import FOLDER, node_program, web_version
from handler.classifier import Classifier
from handler.explain.baselines import baseline_input
from handler.model.checkpoint import Model
from handler.model.engine import Engine
from tests.conftest import Pixels
from tests.support.explaining import classifier_of, maps, network_inputs
from training.data import PathMNIST

Answers = dict[str, np.ndarray[Any, Any]]
PAIRS = ("graph against float64", "Captum against float64")


@pytest.fixture(scope="module")
def path(model_store: Path) -> Path:
    return model_store / "pathmnist_explain.onnx"


@pytest.fixture(scope="module")
def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def noise() -> Pixels:
    """Images without near-equal neighbours, between which rounding would decide."""
    return np.random.default_rng(1).integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)


def feed(tiles: Pixels, targets: list[int], n_steps: int, baseline: float = 0.0) -> dict[str, Any]:
    return {
        "image": tiles,
        "target": np.array(targets),
        "n_steps": np.array(n_steps),
        "baseline": np.full(3, baseline, dtype=np.float32),
    }


def explain(session: onnxruntime.InferenceSession, *arguments: Any) -> Answers:
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), feed(*arguments)), strict=True))


def test_the_loop_is_integrated_gradients_in_float64(model: Model, tiles: Pixels) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        graph = ExplanationGraph(replace(model, network=deepcopy(model.network).double()))
    finally:
        torch.set_default_dtype(torch.float32)
    inputs = network_inputs(model, tiles[:1]).double()
    start = baseline_input("white", inputs, model.preprocessing)
    actual = (inputs - start) * graph._mean_gradient(start, inputs - start, torch.tensor([5]), torch.tensor(3))
    classifier = classifier_of(model, graph.network)
    expected = maps(classifier.explain_inputs(inputs, "integrated_gradients", 5, n_steps=3, baseline="white"))
    assert (actual - expected).abs().max() <= 1e-9 * expected.abs().max()


def test_maps_of_real_tiles_are_captums(model: Model, path: Path, real_data: PathMNIST) -> None:
    """Within rounding, which moves Captum's own maps as much."""
    rows = compare(model, path, real_data.test.spread(3), n_steps=1, yardstick=True)
    for name in MAPS:
        graph, captum = (np.mean([row[pair][name] for row in rows]) for pair in PAIRS)
        assert graph < 1.5 * captum + 0.01


def test_maps_of_noise_are_captums(model: Model, path: Path, noise: Pixels) -> None:
    (row,) = compare(model, path, noise[:1], n_steps=2)
    assert max(row["graph against Captum"].values()) < 0.05


def test_each_row_has_its_own_target_and_completeness(
    session: onnxruntime.InferenceSession, model: Model, classifier: Classifier, noise: Pixels
) -> None:
    answers = explain(session, noise[:2], [8, 3], 3, 1.0)
    images = list(noise[:2])
    fixed_rule: dict[str, Any] = {"n_steps": 3, "baseline": "white"}
    expected = {
        "saliency": maps(classifier.explain(images, "saliency", [8, 3])),
        "integrated_gradients": maps(classifier.explain(images, "integrated_gradients", [8, 3], **fixed_rule)),
    }
    for name, values in expected.items():
        for row in range(2):
            gap = np.linalg.norm(answers[name][row] - values[row].numpy()) / values[row].norm()
            assert gap < 0.05, (name, row)
    inputs = network_inputs(model, noise[:2])
    with torch.no_grad():
        assert np.abs(answers["logits"] - model.network(inputs).numpy()).max() < 1e-4
        start = model.network(baseline_input("white", inputs, model.preprocessing)).numpy()
    for row, target in enumerate((8, 3)):
        change = answers["logits"][row, target] - start[row, target]
        gap = abs(answers["integrated_gradients"][row].sum(dtype=np.float64) - change) / abs(change)
        assert answers["completeness_residual"][row] == pytest.approx(gap, rel=1e-2, abs=1e-5)


def test_images_of_any_size_are_explained(session: onnxruntime.InferenceSession, model: Model) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 90, 61, 3), dtype=np.uint8)
    answers = explain(session, image, [1], 0)
    assert answers["saliency"].shape == (1, 3, 224, 224)
    expected = Engine(model, torch.device("cpu")).forward(list(image)).logits.numpy()
    assert np.abs(answers["logits"] - expected).max() < 1e-4


def test_no_steps_leave_integrated_gradients_out(session: onnxruntime.InferenceSession, noise: Pixels) -> None:
    answers = explain(session, noise[:1], [0], 0)
    assert not answers["integrated_gradients"].any()
    assert answers["completeness_residual"] == pytest.approx(1)
    assert answers["saliency"].any()


def test_more_steps_than_the_table_holds_are_an_error(session: onnxruntime.InferenceSession, noise: Pixels) -> None:
    with pytest.raises(Exception, match="out of"):
        explain(session, noise[:1], [0], 257)


def test_openvino_gives_the_same_maps(path: Path, session: onnxruntime.InferenceSession, noise: Pixels) -> None:
    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = model(feed(noise[:1], [3], 2))
    assert_same({name: found[name] for name in OUTPUTS}, explain(session, noise[:1], [3], 2))


def test_opencv_gives_the_same_maps(path: Path, session: onnxruntime.InferenceSession, noise: Pixels) -> None:
    network = cv2.dnn.readNetFromONNX(str(path), cv2.dnn.ENGINE_NEW)
    for name, value in feed(noise[:1], [3], 2).items():
        network.setInput(value, name)
    found = dict(zip(OUTPUTS, network.forward(list(OUTPUTS)), strict=True))
    assert_same(found, explain(session, noise[:1], [3], 2))


WEB = """
import ort from "onnxruntime-web";
import { readFileSync } from "node:fs";
const [path, tile] = process.argv.slice(1);
const session = await ort.InferenceSession.create(readFileSync(path));
const outputs = await session.run({
  image: new ort.Tensor("uint8", Uint8Array.from(JSON.parse(tile)), [1, 28, 28, 3]),
  target: new ort.Tensor("int64", [3n], [1]),
  n_steps: new ort.Tensor("int64", [2n], []),
  baseline: new ort.Tensor("float32", [0, 0, 0], [3]),
});
console.log(JSON.stringify(Object.fromEntries(Object.entries(outputs).map(([k, v]) => [k, Array.from(v.data)]))));
"""


def test_onnx_runtime_web_gives_the_same_maps(path: Path, session: onnxruntime.InferenceSession, noise: Pixels) -> None:
    try:
        web_version()
        program = node_program()
    except MissingRuntimeError as error:
        pytest.skip(str(error))
    command = [program, "--input-type=module", "-e", WEB, str(path), json.dumps(noise[0].ravel().tolist())]
    finished = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=True)
    found = {name: np.array(values) for name, values in json.loads(finished.stdout).items()}
    expected = explain(session, noise[:1], [3], 2)
    assert_same({name: found[name].reshape(values.shape) for name, values in expected.items()}, expected)


def assert_same(found: Answers, expected: Answers) -> None:
    assert np.abs(found["logits"] - expected["logits"]).max() < 1e-4
    errors = map_errors(*({name: np.asarray(answers[name]) for name in MAPS} for answers in (found, expected)))
    assert max(errors.values()) < 0.05
