"""What the ResNet-18 computes that was made from a compact network, against that network."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import ResNet

from handler.model.network import feature_map
from handler.model.preprocess import Preprocessing, network_input
from training.compact import CompactCNN
from training.data import as_tiles
from training.synthetic import generate
from training.transplant import transplant

SPEC = Preprocessing()
WIDTHS = (4, 5, 6)
# Where the construction puts the first and the last map.
FIRST, LAST = slice(6, 10), slice(10, 16)


@pytest.fixture(scope="module")
def tiles() -> Tensor:
    return as_tiles(generate(18, seed=5))


@pytest.fixture(scope="module")
def compact() -> CompactCNN:
    """A small network whose weights and batch statistics are random."""
    torch.manual_seed(0)
    network = CompactCNN(WIDTHS, SPEC)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn_like(module.weight) / 4
            module.running_var = torch.rand_like(module.weight) + 0.5
            nn.init.normal_(module.bias, std=0.3)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network(compact: CompactCNN, tiles: Tensor) -> ResNet:
    return transplant(compact, tiles, SPEC)


def first_map(network: ResNet, tiles: Tensor) -> Tensor:
    stem = network.maxpool(network.relu(network.bn1(network.conv1(network_input(tiles, SPEC)))))
    result: Tensor = network.layer1(stem)
    return result


@torch.no_grad()
def test_every_map_after_the_first_is_the_same(compact: CompactCNN, network: ResNet, tiles: Tensor) -> None:
    first = first_map(network, tiles)
    found = network.layer4(network.layer3(network.layer2(first)))[:, LAST]
    wanted = compact.conv3(compact.conv2(compact.conv1[3:](first[:, FIRST, ::2, ::2])))
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_logits_are_those_of_the_same_last_map(compact: CompactCNN, network: ResNet, tiles: Tensor) -> None:
    last = feature_map(network, network_input(tiles, SPEC))[:, LAST]
    torch.testing.assert_close(network(network_input(tiles, SPEC)), compact.fc(last.mean(dim=(2, 3))))


@torch.no_grad()
def test_the_first_map_is_near(compact: CompactCNN, network: ResNet, tiles: Tensor) -> None:
    found = first_map(network, tiles)[:, FIRST, ::2, ::2]
    wanted = compact.conv1[:3](2 * tiles - 1)
    assert (found - wanted).norm() < 0.2 * wanted.norm()


@torch.no_grad()
def test_batch_statistics_are_those_of_the_tiles(network: ResNet, tiles: Tensor) -> None:
    inputs = network_input(tiles, SPEC)
    learned = feature_map(network, inputs)
    network.train()
    measured = feature_map(network, inputs)
    network.eval()
    torch.testing.assert_close(measured, learned, rtol=1e-3, atol=1e-3)


def test_sizes_it_was_not_made_for_are_refused(compact: CompactCNN, tiles: Tensor) -> None:
    with pytest.raises(ValueError, match="112"):
        transplant(compact, tiles, replace(SPEC, input_size=112))
