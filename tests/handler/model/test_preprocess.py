from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from handler.model.preprocess import (
    CACHED_MATRICES,
    CACHED_WEIGHTS,
    Preprocessing,
    _cached_reduction,
    canonical_tile,
    network_input,
    normalise,
    preprocess,
    reducing_matrix,
    resampling_matrix,
    triangle,
)
from tests.conftest import Pixels

SPEC = Preprocessing()


def test_a_tile_of_canonical_size_keeps_its_pixels(tiles: Pixels) -> None:
    tile = canonical_tile(torch.from_numpy(tiles[0]), SPEC)
    assert torch.equal((tile * 255).round().byte().permute(1, 2, 0), torch.from_numpy(tiles[0]))


def pillows_tile(image: Pixels, size: int = SPEC.canonical_size) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def grey_levels(image: Pixels, spec: Preprocessing = SPEC) -> NDArray[np.int64]:
    levels = canonical_tile(torch.from_numpy(image), spec).permute(1, 2, 0).double().numpy() * 255
    assert np.abs(levels - levels.round()).max() < 1e-4
    return levels.round().astype(np.int64)


SIZES = [(224, 224), (64, 64), (56, 84), (50, 300), (131, 100), (1024, 29), (27, 3), (1, 1), (1, 2000), (3001, 16)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("canonical", [28, 64])
def test_a_tile_is_within_one_grey_level_of_pillows(size: tuple[int, int], canonical: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    contrast = np.where(image > 127, 255, 0).astype(np.uint8)
    for pixels in (image, contrast):
        difference = grey_levels(pixels, Preprocessing(canonical)) - pillows_tile(pixels, canonical)
        assert np.abs(difference).max() <= 1
        assert (difference != 0).mean() < 0.25


def test_at_powers_of_two_the_tile_is_pillows() -> None:
    for side in (28, 56, 112, 224, 448):
        image = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
        assert np.array_equal(grey_levels(image), pillows_tile(image))


def test_originals_give_medmnists_tiles(shared: Path) -> None:
    for file in (shared / "originals_224").glob("*.png"):
        image = np.array(Image.open(file).convert("RGB"))
        assert np.array_equal(grey_levels(image), pillows_tile(image)), file.name


@pytest.mark.parametrize("source", [1, 27, 29, 100, 1024, 2999, 16384])
def test_a_flat_image_keeps_its_level(source: int) -> None:
    sums = reducing_matrix(source, 28).double().sum(dim=1)
    assert ((sums - 1).abs() * 255).max() < 0.5


def test_sums_of_a_reduction_do_not_depend_on_their_order() -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (100, 131), dtype=np.uint8)).float()
    matrix = reducing_matrix(131, 28)
    exact = image.double() @ matrix.double().T
    order = torch.randperm(131, generator=torch.Generator().manual_seed(0))
    for columns in (torch.arange(131), order):
        assert torch.equal((image[:, columns] @ matrix[:, columns].T).double(), exact)


def test_requests_of_many_sizes_leave_at_most_8_mib() -> None:
    for height in (*range(1, 100), 2000, 50_000):
        canonical_tile(torch.zeros(height, 1, 3, dtype=torch.uint8), SPEC)
    cached = _cached_reduction.cache_info()
    assert cached.maxsize == cached.currsize == CACHED_MATRICES
    assert CACHED_MATRICES * CACHED_WEIGHTS * torch.float32.itemsize <= 8 * 2**20


def test_a_long_image_is_not_remembered() -> None:
    canonical_tile(torch.zeros(1, 1, 3, dtype=torch.uint8), SPEC)
    before = _cached_reduction.cache_info()
    canonical_tile(torch.zeros(50_000, 1, 3, dtype=torch.uint8), SPEC)
    assert _cached_reduction.cache_info().misses == before.misses


def test_enlarging_equals_torchs_bilinear(tiles: Pixels) -> None:
    batch = torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 255
    expected = torch.nn.functional.interpolate(batch, size=224, mode="bilinear", align_corners=False)
    assert torch.allclose(network_input(batch, SPEC), normalise(expected, SPEC), atol=2e-6)


@pytest.mark.parametrize(("source", "target"), [(224, 28), (28, 224), (64, 28), (17, 28), (28, 28)])
def test_resampling_keeps_constants_and_the_centre(source: int, target: int) -> None:
    for matrix in (reducing_matrix(source, target), resampling_matrix(source, target, triangle)):
        assert matrix.shape == (target, source)
        assert torch.allclose(matrix.sum(dim=1), torch.ones(target), atol=1e-4)
        assert torch.allclose(matrix, matrix.flip(0, 1), atol=1e-5)


def test_images_of_different_sizes_share_a_batch(tiles: Pixels) -> None:
    large = np.array(Image.fromarray(tiles[1]).resize((100, 60)))
    together = preprocess([torch.from_numpy(tiles[0]), torch.from_numpy(large)], SPEC)
    alone = preprocess([torch.from_numpy(large)], SPEC)
    assert together.shape == (2, 3, 224, 224)
    assert torch.allclose(together[1:], alone, atol=1e-5)


def test_the_specification_survives_json() -> None:
    spec = Preprocessing(canonical_size=64, input_size=96)
    assert Preprocessing.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("change", [{"input_size": 0}, {"std": [0.0, 1.0, 1.0]}, {"mean": [0.5]}])
def test_a_specification_out_of_range_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must be positive|need three values"):
        Preprocessing.from_json({**SPEC.to_json(), **change})


def test_a_specification_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(TypeError):
        Preprocessing.from_json({**SPEC.to_json(), "crop": 5})
