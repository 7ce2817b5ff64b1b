from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from handler.classes import CODES, NUM_CLASSES, TISSUES
from handler.model.checkpoint import WEIGHTS, Model
from handler.model.network import build_network, class_activation, classify, feature_map, for_inference, load_network
from handler.model.preprocess import Preprocessing, preprocess
from tests.conftest import Pixels
from training.checkpoint import SHIPPED


def test_the_parts_make_the_whole_network(model: Model) -> None:
    inputs = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        features = feature_map(model.network, inputs)
        assert features.shape == (2, 512, 7, 7)
        assert torch.allclose(classify(model.network, features), model.network(inputs), atol=1e-5)


def test_class_activations_and_biases_sum_to_the_logits() -> None:
    network = build_network().double().eval()
    inputs = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        features = feature_map(network, inputs)
        total = class_activation(network, features).sum(dim=(2, 3)) + network.fc.bias
        assert torch.allclose(total, network(inputs), atol=1e-12)


def test_half_precision_weights_load_as_float32(tmp_path: Path) -> None:
    network = build_network()
    path = tmp_path / "weights.safetensors"
    save_file({k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}, path)
    loaded = load_network(path)
    assert not loaded.training
    assert loaded.fc.weight.dtype == torch.float32
    assert torch.equal(loaded.fc.weight, network.fc.weight.half().float())


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    state = build_network().state_dict()
    state["fc.weight"] = torch.zeros(5, 512)
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(RuntimeError, match=r"fc\.weight"):
        load_network(tmp_path / "weights.safetensors")


def test_the_class_table_is_medmnists() -> None:
    from medmnist import INFO

    assert [tissue.name for tissue in TISSUES] == [INFO["pathmnist"]["label"][str(i)] for i in range(NUM_CLASSES)]
    assert [tissue.class_id for tissue in TISSUES] == list(range(NUM_CLASSES))
    assert len(set(CODES)) == NUM_CLASSES


def test_the_network_for_inference_computes_the_same(tiles: Pixels) -> None:
    network = load_network(SHIPPED / WEIGHTS)
    inputs = preprocess([torch.from_numpy(tile) for tile in tiles[:4]], Preprocessing())
    with torch.no_grad():
        expected = network(inputs)
        found = for_inference(network)(inputs)
    assert (found - expected).abs().max() < 1e-4
    exact, folded = network.double(), for_inference(network)
    with torch.no_grad():
        assert torch.allclose(folded(inputs.double()), exact(inputs.double()), atol=1e-10)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
