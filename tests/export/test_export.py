import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export.__main__ import export
from export.attribution import require_maps
from export.graph import OOD_SCORE, OUTPUTS, write_onnx
from export.onnx_file import describe
from export.parity import Parity, ParityError, measure_parity, require_parity
from export.predictor import CLASSIFYING, Predictor
from export.ranges import RANGES
from handler.classes import CODES, DISCLAIMER
from handler.model.backends import NETWORK_INT8, NETWORK_MNN, NETWORK_ONNX
from handler.model.checkpoint import CARD, Model, file_digest
from handler.model.engine import Engine
from handler.model.gate import PROBE_TILES
from handler.model.prediction import DecisionRules
from serving.supervisor import ROOT
from tests.conftest import Pixels
from training.checkpoint import SHIPPED
from training.data import PathMNIST
from training.synthetic import generate


@pytest.fixture(scope="module")
def session(model_store: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model_store / "pathmnist.onnx", providers=["CPUExecutionProvider"])


def test_the_graph_takes_raw_images_and_names_its_outputs(session: onnxruntime.InferenceSession) -> None:
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", "height", "width", 3])
    assert [item.name for item in session.get_outputs()] == [*OUTPUTS, OOD_SCORE]


@pytest.mark.parametrize("shape", [(28, 28), (64, 64), (224, 224), (90, 333), (19, 17)])
def test_images_of_any_size_get_pytorchs_answers(
    shape: tuple[int, int], session: onnxruntime.InferenceSession, model: Model
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, *shape, 3), dtype=np.uint8)
    logits, probabilities, cam, embedding, ood_scores = session.run(None, {"image": images})
    forward = Engine(model, torch.device("cpu")).forward(list(images))
    assert np.abs(logits - forward.logits.numpy()).max() < 1e-4
    assert model.confidence is not None
    calibrated = (forward.logits / model.confidence.temperature).softmax(dim=1)
    assert np.allclose(probabilities, calibrated, atol=1e-5)
    assert np.allclose(embedding, forward.features.mean(dim=(2, 3)), atol=1e-4)
    assert np.allclose(ood_scores, model.confidence.ood_scores(forward.features.mean(dim=(2, 3))), rtol=1e-3)
    assert np.allclose(cam.sum(axis=(2, 3)) + model.network.fc.bias.numpy(), logits, atol=1e-4)


def test_real_tiles_get_pytorchs_answers(model: Model, model_store: Path, real_data: PathMNIST) -> None:
    parity = measure_parity(model, model_store / "pathmnist.onnx", real_data.test.images[:128])
    assert parity.max_logit_difference < 1e-4
    assert parity.top1_agreement == 1


def test_the_metadata_says_what_the_file_is(model: Model, session: onnxruntime.InferenceSession) -> None:
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["weights_sha256"] == model.digest
    assert metadata["codes"].split(",") == list(CODES)
    assert [item["code"] for item in json.loads(metadata["classes"])] == list(CODES)
    assert json.loads(metadata["preprocessing"]) == model.preprocessing.to_json()
    assert model.confidence is not None
    assert float(metadata["temperature"]) == model.confidence.temperature
    assert DecisionRules.from_json(json.loads(metadata["rules"])).rules_json() == model.confidence.rules_json()
    card = json.loads((SHIPPED / CARD).read_text())
    assert metadata["licence"] == card["licence"]
    summary = json.loads(metadata["card"])
    assert summary["evaluation"]["test"]["accuracy"] == card["evaluation"]["test"]["accuracy"]
    assert summary["training"]["data"] == card["training"]["data"]
    assert summary["disclaimer"] == DISCLAIMER


def test_a_model_without_a_calibration_is_exported_without_rules(model: Model, tiles: Pixels, tmp_path: Path) -> None:
    plain = replace(model, confidence=None)
    write_onnx(plain, describe(plain, SHIPPED), tmp_path / CLASSIFYING)
    predictor = Predictor(tmp_path)
    assert predictor.rules is None
    prediction = predictor.classify(tiles[0]).prediction
    assert (prediction.calibrated, prediction.ood_score, prediction.prediction_sets) == (False, None, {})
    assert prediction.probabilities.sum() == pytest.approx(1)


def test_two_exports_are_the_same_bytes(model_store: Path, tmp_path: Path) -> None:
    (tmp_path / "model.sig").write_text("of another export")
    export(SHIPPED, tmp_path, generate(18, seed=2).images)
    assert not (tmp_path / "model.sig").exists()
    for name in ("pathmnist.mar", "pathmnist.onnx", "pathmnist_explain.onnx", "manifest.json"):
        assert file_digest(tmp_path / name) == file_digest(model_store / name), name


def test_no_artifact_names_a_path_of_this_machine(model_store: Path) -> None:
    root = str(ROOT).encode()
    for file in model_store.glob("*.onnx"):
        assert root not in file.read_bytes(), file.name
    with zipfile.ZipFile(model_store / "pathmnist.mar") as archive:
        for name in archive.namelist():
            assert root not in archive.read(name), name


def test_the_archive_holds_all_it_needs_and_no_pickle(model_store: Path) -> None:
    with zipfile.ZipFile(model_store / "pathmnist.mar") as archive:
        names = set(archive.namelist())
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "handler").rglob("*.py")}
    wanted = {"pathmnist_handler.py", "model-config.yaml", "MAR-INF/MANIFEST.json", *package}
    checkpoint = {path.name for path in SHIPPED.iterdir()} - {RANGES}
    assert names == wanted | checkpoint | {NETWORK_ONNX, NETWORK_INT8, NETWORK_MNN, PROBE_TILES}


def test_the_manifest_holds_every_digest(model_store: Path, model: Model) -> None:
    manifest = json.loads((model_store / "manifest.json").read_text())
    assert manifest["model"] == model.identity()
    assert set(manifest["artifacts"]) == {"pathmnist.mar", "pathmnist.onnx", "pathmnist_explain.onnx"}
    for name, entry in manifest["artifacts"].items():
        assert entry["sha256"] == file_digest(model_store / name)
    assert manifest["onnx"]["parity"]["max_logit_difference"] < 1e-4


@pytest.mark.parametrize("parity", [Parity(9, 2e-4, 1.0), Parity(9, 1e-6, 0.99), Parity(9, float("nan"), 1.0)])
def test_a_file_that_differs_is_refused(parity: Parity) -> None:
    with pytest.raises(ParityError):
        require_parity(parity)


@pytest.mark.parametrize("error", [0.5, float("nan")])
def test_maps_that_are_not_captums_are_refused(error: float) -> None:
    right = {"graph against Captum": {"saliency": 1e-4, "integrated_gradients": 1e-4}}
    wrong = {"graph against Captum": {"saliency": 1e-4, "integrated_gradients": error}}
    require_maps([right])
    with pytest.raises(ParityError):
        require_maps([right, wrong, right])


def test_a_wrong_weight_is_found(model_store: Path, model: Model, tiles: Pixels, tmp_path: Path) -> None:
    graph = onnx.load(model_store / "pathmnist.onnx")
    bias = next(item for item in graph.graph.initializer if item.name.endswith("fc.bias"))
    changed = onnx.numpy_helper.to_array(bias).copy()
    changed[0] += 1e-3
    bias.CopyFrom(onnx.numpy_helper.from_array(changed, bias.name))
    onnx.save(graph, tmp_path / "wrong.onnx")
    with pytest.raises(ParityError):
        require_parity(measure_parity(model, tmp_path / "wrong.onnx", tiles))
