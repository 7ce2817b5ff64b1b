"""The hub's library reads the card, its figures are the reports', and the files give our answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import resnet18

from export.bundles.source import Source
from handler.classes import CODES
from handler.classifier import Classifier
from handler.model.checkpoint import file_digest
from handler.model.prediction import DecisionRules
from handler.model.preprocess import Preprocessing, preprocess
from tests.conftest import Pixels
from tests.support.wsinfer import run_wsinfer


@pytest.fixture(scope="module")
def card(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    script = Path(__file__).parent / "hub_card.py"
    home = tmp_path_factory.mktemp("home")
    found: dict[str, Any] = json.loads(run_wsinfer("python", script, bundles / "hub" / "README.md", home=home))
    return found


def test_the_hubs_library_reads_the_metadata(card: dict[str, Any], source: Source) -> None:
    data = card["data"]
    assert (data["license"], data["pipeline_tag"]) == ("mit", "image-classification")
    assert data["model-index"] == card["model_index"]
    assert data["model-index"][0]["name"] == source.model.name
    assert source.model.digest in card["text"]


def test_the_model_index_holds_the_reports_with_their_intervals(card: dict[str, Any], source: Source) -> None:
    found = {
        (result["dataset_split"], result["dataset_config"], result["metric_name"]): (
            result["metric_value"],
            result["metric_args"]["interval"],
        )
        for result in card["results"]
    }
    splits = source.reports["evaluation"]["splits"]
    for name in ("accuracy", "balanced_accuracy", "auc"):
        assert found["test", None, name] == (splits["test"][name]["value"], splits["test"][name]["interval"])
        assert found["validation", None, name] == (splits["val"][name]["value"], splits["val"][name]["interval"])
    stroma = splits["test"]["classes"]["STR"]["recall"]
    assert found["test", None, "recall, STR"] == (stroma["value"], stroma["interval"])
    blurred = source.reports["robustness"]["changes"]["blur, pixels"]["1.5"]
    assert found["test", "blur, pixels 1.5", "accuracy"] == (blurred["accuracy"], blurred["interval"])
    sets = source.reports["confidence"]["sets"]["0.9"]["LAC"]
    assert found["test", None, "coverage of prediction sets that promise 0.9"] == (
        sets["share"],
        [sets["low"], sets["high"]],
    )
    for value, (low, high) in found.values():
        assert low <= value <= high


def test_weights_and_data_files_give_our_probabilities(bundles: Path, classifier: Classifier, tiles: Pixels) -> None:
    folder = bundles / "hub"
    network = resnet18(num_classes=len(CODES)).eval()
    network.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
    spec = Preprocessing.from_json(json.loads((folder / "preprocessing.json").read_text()))
    rules = DecisionRules.from_json(json.loads((folder / "calibration.json").read_text()))
    with torch.no_grad():
        logits = network(preprocess([torch.from_numpy(tile) for tile in tiles], spec)).double()
    expected = [prediction.probabilities for prediction in classifier.predict(list(tiles))]
    assert np.allclose((logits / rules.temperature).softmax(dim=1), expected, atol=1e-5)


def test_the_onnx_files_are_those_of_the_store(bundles: Path, source: Source) -> None:
    folder = bundles / "hub" / "onnx"
    assert sorted(file.name for file in folder.iterdir()) == ["pathmnist.onnx", "pathmnist_explain.onnx"]
    for file in folder.iterdir():
        assert file_digest(file) == file_digest(source.store / file.name)


def test_the_configuration_names_the_classes_in_order(bundles: Path) -> None:
    config = json.loads((bundles / "hub" / "config.json").read_text())
    assert [config["id2label"][str(index)] for index in range(config["num_classes"])] == list(CODES)
    assert list(config["label2id"]) == list(CODES)
