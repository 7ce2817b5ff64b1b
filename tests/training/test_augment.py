import pytest
import torch
from torch import Tensor

from training import augment
from training.resample import KERNELS, RandomRoundTrip, round_trip
from training.synthetic import generate


@pytest.fixture
def batch() -> Tensor:
    torch.manual_seed(0)
    return torch.from_numpy(generate(18, seed=0).images).permute(0, 3, 1, 2).float() / 255


def test_stains_of_strength_zero_change_nothing(batch: Tensor) -> None:
    assert torch.allclose(augment.StainJitter(0.0)(batch), batch.clamp(min=1e-3), atol=1e-5)


def test_more_haematoxylin_darkens_along_its_stain_vector() -> None:
    grey = torch.full((1, 3, 4, 4), 0.7)
    jitter = augment.StainJitter(0.0)
    stains = torch.einsum("nchw,cs->nshw", -torch.log(grey), jitter.get_buffer("to_stain"))
    stains[:, 0] += 0.1
    darker = torch.exp(-torch.einsum("nshw,sc->nchw", stains, jitter.get_buffer("to_density")))
    change = (torch.log(grey) - torch.log(darker))[0, :, 0, 0]
    assert torch.allclose(change, 0.1 * augment.STAINS[0], atol=1e-5)


@pytest.mark.parametrize("name", ["classic_geometry", "strong_geometry", "classic_colour", "strong_colour"])
def test_augmentation_keeps_shape_range_and_varies_by_tile(name: str, batch: Tensor) -> None:
    make = getattr(augment, name)
    module = make(28, 0.3, 0.35) if name == "strong_colour" else make()
    same = batch[:1].expand(16, -1, -1, -1)
    changed = module(same).clamp(0, 1)
    assert changed.shape == same.shape
    assert changed.isfinite().all()
    assert len({tuple(tile.flatten()[:200].tolist()) for tile in changed}) > 8


def test_mixing_blends_tiles_and_labels_by_the_same_share(batch: Tensor) -> None:
    # Label k belongs to a tile of constant brightness k, so blended labels must equal blended brightness.
    values = torch.arange(9.0)
    tiles = values[:, None, None, None].expand(9, 3, 4, 4) / 10
    mixed, labels = augment.mix(tiles, torch.eye(9), probability=1.0)
    assert torch.allclose(mixed[:, 0, 0, 0] * 10, labels @ values, atol=1e-5)
    assert torch.allclose(labels.sum(dim=1), torch.ones(9))


def test_mixing_with_probability_zero_changes_nothing(batch: Tensor) -> None:
    mixed, labels = augment.mix(batch[:9], torch.eye(9), probability=0.0)
    assert torch.equal(mixed, batch[:9])
    assert torch.equal(labels, torch.eye(9))


def test_nearest_enlargement_and_box_reduction_are_inverse() -> None:
    matrix = round_trip(28, 112, KERNELS["box"], KERNELS["box"])
    assert torch.allclose(matrix, torch.eye(28), atol=1e-6)


def test_round_trips_keep_constants_and_hit_only_some_tiles(batch: Tensor) -> None:
    constant = torch.full((64, 3, 28, 28), 0.4)
    assert torch.allclose(RandomRoundTrip(28, 1.0)(constant), constant, atol=1e-5)
    assert torch.equal(RandomRoundTrip(28, 0.0)(batch), batch)
    tiles = batch[:1].expand(400, -1, -1, -1)
    share = (RandomRoundTrip(28, 0.4)(tiles) - tiles).abs().amax(dim=(1, 2, 3)).gt(1e-4).float().mean()
    assert 0.25 < float(share) < 0.55
