"""Each measure on maps that are known to be right or wrong."""

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.faithfulness import (
    STAGES,
    area_under,
    cell_order,
    edge_map,
    randomise_from_the_top,
    rank_correlation,
    replacement_curve,
)
from handler.model.network import load_network
from tests.conftest import Pixels
from training.checkpoint import SHIPPED

WEIGHTS = SHIPPED / "pathmnist_resnet18.safetensors"


def one_hot_map(side: int, row: int, column: int) -> Tensor:
    strength = torch.zeros(side, side)
    strength[row, column] = 1
    return strength


@pytest.mark.parametrize("side", [7, 28, 56, 5])
def test_the_strongest_cell_comes_first_whatever_the_maps_size(side: int) -> None:
    strength = torch.zeros(side, side)
    strength[: side // 4 + 1, -(side // 4 + 1) :] = 5
    order = cell_order(strength, 4)
    assert order[0] == 3
    assert sorted(order.tolist()) == list(range(16))


def corner_mean(inputs: Tensor) -> Tensor:
    """A network that looks at the upper left quarter only."""
    size = inputs.shape[-1] // 2
    return inputs[:, :, :size, :size].mean(dim=(1, 2, 3))


def test_deletion_falls_at_once_where_the_map_is_right_and_last_where_it_is_wrong() -> None:
    tile, nothing = torch.ones(3, 8, 8), torch.zeros(3, 8, 8)
    right, wrong = (cell_order(one_hot_map(2, *cell), 2) for cell in ((0, 0), (1, 1)))
    assert replacement_curve(tile, nothing, right, 2, 4, corner_mean).tolist() == [1, 0, 0, 0, 0]
    curve = replacement_curve(tile, nothing, wrong, 2, 4, corner_mean)
    assert (curve[0], curve[1], curve[-1]) == (1, 1, 0)
    assert area_under(curve) > area_under(np.array([1, 0, 0, 0, 0]))


def test_every_curve_begins_and_ends_at_the_two_pictures() -> None:
    start, end = torch.rand(3, 9, 9), torch.rand(3, 9, 9)
    curve = replacement_curve(start, end, torch.randperm(9), 3, 5, corner_mean)
    expected = corner_mean(torch.stack([start, end])).double().numpy()
    assert np.allclose(curve[[0, -1]], expected)


def test_the_area_under_a_constant_is_its_height() -> None:
    assert area_under(np.full(11, 0.25)) == pytest.approx(0.25)
    assert area_under(np.linspace(0, 1, 15)) == pytest.approx(0.5)


def test_edges_lie_on_changes_of_colour() -> None:
    image = np.zeros((20, 20, 3), dtype=np.uint8)
    image[:, 10:] = 200
    edges = edge_map(image)
    assert edges[:, 9:11].min() > 0
    assert edges[:, :8].max() == 0


def test_rank_correlation_sees_order_alone() -> None:
    values = torch.rand(6, 6)
    assert rank_correlation(values, values**3) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    assert rank_correlation(values, torch.ones(6, 6)) == 0


def test_weights_are_replaced_from_the_top(tiles: Pixels) -> None:
    for stage in (0, 2):
        network, original = load_network(WEIGHTS), load_network(WEIGHTS)
        randomise_from_the_top(network, stage, seed=1)
        for index, name in enumerate(STAGES):
            weights = zip(
                network.get_submodule(name).parameters(), original.get_submodule(name).parameters(), strict=True
            )
            same = all(torch.equal(one, other) for one, other in weights)
            assert same == (index > stage), name
        again = load_network(WEIGHTS)
        randomise_from_the_top(again, stage, seed=1)
        assert torch.equal(again.fc.weight, network.fc.weight)
