"""WSInfer's bundle gives our probabilities, in PyTorch and in WSInfer."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from torch.jit import ScriptModule
from torchvision.transforms import ToTensor

from handler.classes import CODES
from handler.classifier import Classifier
from tests.support.wsinfer import run_wsinfer

# WSInfer reads TorchScript, which PyTorch calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")


@pytest.fixture(scope="module")
def module(bundles: Path) -> ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.jit.load(bundles / "wsinfer" / "torchscript_model.pt")


def softmax(module: ScriptModule, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """What WSInfer does with tiles."""
    with torch.no_grad():
        return module(torch.stack([ToTensor()(image) for image in images])).softmax(dim=1).numpy()


@pytest.mark.parametrize("shape", [(28, 28), (224, 224), (448, 448), (90, 333), (19, 17)])
def test_the_module_gives_calibrated_probabilities_at_any_size(
    shape: tuple[int, int], module: ScriptModule, classifier: Classifier
) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (3, *shape, 3), dtype=np.uint8))
    expected = [prediction.probabilities for prediction in classifier.predict(images)]
    assert np.allclose(softmax(module, images), expected, atol=1e-5)


def test_the_module_runs_on_the_device_that_it_is_on(bundles: Path) -> None:
    """A constant on another device would raise; `meta` is a device without memory."""
    module = torch.jit.load(bundles / "wsinfer" / "torchscript_model.pt", map_location="meta")
    assert next(module.parameters()).is_meta
    logits = module(torch.zeros(2, 3, 224, 224, device="meta"))
    assert (logits.shape, logits.is_meta) == ((2, 9), True)


def test_wsinfer_accepts_the_configuration(bundles: Path, tmp_path: Path) -> None:
    file = bundles / "wsinfer" / "config.json"
    assert "VALID" in run_wsinfer("wsinfer-zoo", "validate-config", file, home=tmp_path)
    assert json.loads(file.read_text())["class_names"] == list(CODES)


def test_wsinfer_gives_our_probabilities_on_a_slide(
    bundles: Path, shared: Path, classifier: Classifier, tmp_path: Path
) -> None:
    slide = shared / "slides" / "small_HE.svs"
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / slide.name).symlink_to(slide)
    options = {
        "wsi-dir": tmp_path / "slides",
        "results-dir": tmp_path / "results",
        "config": bundles / "wsinfer" / "config.json",
        "model-path": bundles / "wsinfer" / "torchscript_model.pt",
        "num-workers": "1",
    }
    run_wsinfer("wsinfer", "run", *(f"--{name}={value}" for name, value in options.items()), home=tmp_path)
    table = np.genfromtxt(tmp_path / "results" / "model-outputs-csv" / "small_HE.csv", delimiter=",", names=True)
    pixels = tifffile.imread(slide)
    places = zip(*(table[name].astype(int) for name in ("minx", "miny", "width", "height")), strict=True)
    tiles = [pixels[y : y + height, x : x + width] for x, y, width, height in places]
    expected = np.stack([prediction.probabilities for prediction in classifier.predict(tiles)])
    found = np.stack([table[f"prob_{code}"] for code in CODES], axis=1)
    assert len(found) > 40
    assert np.abs(found - expected).max() < 1e-4
