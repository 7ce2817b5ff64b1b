"""What the network computes that was made from a teacher, against the teacher."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ResNet

from handler.network import feature_map
from handler.preprocess import Preprocessing, network_input
from training.data import PathMNIST
from training.evaluate import predict_probabilities
from training.synthetic import generate
from training.teacher import SimpleCNN, load_teacher
from training.transplant import transplant

SPEC = Preprocessing()
WIDTHS = (4, 5, 6)


def as_tiles(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


@pytest.fixture(scope="module")
def tiles() -> Tensor:
    return as_tiles(generate(18, seed=5).images)


@pytest.fixture(scope="module")
def teacher() -> SimpleCNN:
    """A small teacher whose weights and batch statistics are random."""
    torch.manual_seed(0)
    network = SimpleCNN(WIDTHS, hidden=8)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn_like(module.weight) / 4
            module.running_var = torch.rand_like(module.weight) + 0.5
            nn.init.normal_(module.bias, std=0.3)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network(teacher: SimpleCNN, tiles: Tensor) -> ResNet:
    return transplant(teacher, tiles, SPEC)


@torch.no_grad()
def test_every_map_after_the_first_is_the_teachers(teacher: SimpleCNN, network: ResNet, tiles: Tensor) -> None:
    stem = network.maxpool(network.relu(network.bn1(network.conv1(network_input(tiles, SPEC)))))
    first = network.layer1(stem)
    found = network.layer4(network.layer3(network.layer2(first)))[:, 10:16]
    taught = teacher.conv1[3:](first[:, 6:10, ::2, ::2])
    wanted = teacher.conv3[:6](teacher.conv2(taught))
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_first_map_is_near_the_teachers(teacher: SimpleCNN, network: ResNet, tiles: Tensor) -> None:
    stem = network.maxpool(network.relu(network.bn1(network.conv1(network_input(tiles, SPEC)))))
    found = network.layer1(stem)[:, 6:10, ::2, ::2]
    wanted = teacher.conv1[:3](2 * tiles - 1)
    assert (found - wanted).norm() < 0.2 * wanted.norm()


@torch.no_grad()
def test_batch_statistics_are_those_of_the_tiles(network: ResNet, tiles: Tensor) -> None:
    inputs = network_input(tiles, SPEC)
    learned = feature_map(network, inputs)
    network.train()
    measured = feature_map(network, inputs)
    network.eval()
    torch.testing.assert_close(measured, learned, rtol=1e-3, atol=1e-3)


def test_the_real_teachers_answers_survive(real_data: PathMNIST, shared: Path) -> None:
    teacher = load_teacher(shared / "teacher" / "pathmnist_simple_cnn.safetensors")
    network = transplant(teacher, as_tiles(real_data.train.images[::10]), SPEC)
    probabilities = predict_probabilities(network, real_data.val, SPEC)
    with torch.no_grad():
        taught = teacher(as_tiles(real_data.val.images)).argmax(dim=1).numpy()
    assert (probabilities.argmax(axis=1) == taught).mean() > 0.95


def test_sizes_it_was_not_made_for_are_refused(teacher: SimpleCNN, tiles: Tensor) -> None:
    with pytest.raises(ValueError, match="112"):
        transplant(teacher, tiles, replace(SPEC, input_size=112))
