import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18

from handler.classes import CODES, NUM_CLASSES, TISSUES
from handler.model.checkpoint import WEIGHTS, Model
from handler.model.network import build_network, class_activation, classify, feature_map, for_inference, load_network
from handler.model.preprocess import Preprocessing, preprocess
from serving.supervisor import ROOT
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


def test_the_network_is_torchvisions_to_the_last_bit() -> None:
    theirs = resnet18(num_classes=NUM_CLASSES)
    with torch.no_grad():
        for module in theirs.modules():
            if isinstance(module, nn.BatchNorm2d):
                cast("Tensor", module.running_mean).normal_()
                cast("Tensor", module.running_var).uniform_(0.5, 2)
    ours = build_network()
    ours.load_state_dict(theirs.state_dict())
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in theirs.named_modules()]
    for inputs in (torch.randn(2, 3, 224, 224), torch.randn(1, 3, 97, 64)):
        for network in (ours, theirs):
            network.zero_grad()
            network.eval()(inputs)[:, 3].sum().backward()
        assert torch.equal(ours(inputs), theirs(inputs))
        for parameter, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(cast("Tensor", parameter.grad), cast("Tensor", expected.grad))
    assert torch.equal(ours.train()(inputs.repeat(2, 1, 1, 1)), theirs.train()(inputs.repeat(2, 1, 1, 1)))


def test_the_server_imports_neither_torchvision_nor_captum() -> None:
    """Each takes a second and dozens of megabytes of every worker."""
    unwanted = "{'torchvision', 'captum', 'matplotlib'}"
    code = f"import sys, handler.pathmnist_handler; sys.exit(bool({unwanted} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
