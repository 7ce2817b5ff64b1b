"""The gradient in plain operations equals autograd, in float64."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.models import ResNet

from export.gradients import _pool_maximum, _rectify, logits_and_gradient
from handler.model.checkpoint import Model
from handler.model.preprocess import preprocess
from tests.conftest import Pixels
from training.data import PathMNIST


@pytest.fixture(scope="module")
def network(model: Model) -> ResNet:
    return deepcopy(model.network).double()


def assert_autograds(network: ResNet, inputs: Tensor, target: Tensor) -> None:
    """Logits and gradient within 1e-9 of autograd's, relative to the largest value."""
    expected_logits = network(inputs.requires_grad_())
    (expected,) = torch.autograd.grad(expected_logits.gather(1, target[:, None]).sum(), inputs)
    logits, gradient = logits_and_gradient(network, inputs.detach(), target)
    assert (logits - expected_logits).abs().max() <= 1e-9 * expected_logits.abs().max()
    assert (gradient - expected).abs().max() <= 1e-9 * expected.abs().max()


def network_inputs(model: Model, tiles: Pixels) -> Tensor:
    """Half as large as the network's own, for speed; test_explanation.py has full size."""
    half = replace(model.preprocessing, input_size=model.preprocessing.input_size // 2)
    return preprocess([torch.from_numpy(tile) for tile in tiles], half).double()


def test_every_class_of_a_real_tile_of_each_class(network: ResNet, model: Model, real_data: PathMNIST) -> None:
    split = real_data.test
    first = [int((split.labels == label).argmax()) for label in range(9)]
    target = torch.arange(9).roll(1)
    assert_autograds(network, network_inputs(model, split.images[first]), target)


def test_tiles_of_one_colour_where_every_window_has_equal_maxima(network: ResNet, model: Model) -> None:
    levels = torch.tensor([0, 128, 255], dtype=torch.uint8)
    tiles = levels[:, None, None, None].expand(3, 28, 28, 3).numpy()
    assert_autograds(network, network_inputs(model, tiles), torch.tensor([0, 4, 8]))


def test_of_equal_maxima_the_first_receives_the_gradient_as_in_autograd() -> None:
    """Small integers, so that nearly every window has several maxima, in negative regions too."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randint(-3, 3, (2, 4, 12, 12), generator=generator).double().requires_grad_()
    gradient = torch.randn(2, 4, 6, 6, dtype=torch.float64, generator=generator)
    pooled = torch.nn.functional.max_pool2d(maps.relu(), 3, 2, 1)
    (expected,) = torch.autograd.grad(pooled, maps, gradient)
    rectified, through_relu = _rectify(maps.detach())
    actual, through_pool = _pool_maximum(rectified)
    assert torch.equal(actual, pooled)
    assert torch.allclose(through_relu(through_pool(gradient)), expected, atol=1e-12)
