import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from handler.model.preprocess import (
    Preprocessing,
    area_matrix,
    canonical_tile,
    network_input,
    normalise,
    preprocess,
    resampling_matrix,
    triangle,
)
from tests.conftest import Pixels

SPEC = Preprocessing()


def test_a_tile_of_canonical_size_keeps_its_pixels(tiles: Pixels) -> None:
    tile = canonical_tile(torch.from_numpy(tiles[0]), SPEC)
    assert torch.equal((tile * 255).round().byte().permute(1, 2, 0), torch.from_numpy(tiles[0]))


@pytest.mark.parametrize("size", [(56, 56), (84, 112), (224, 224), (280, 56)])
def test_reducing_by_whole_factors_equals_pillows_box(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BOX))
    found = canonical_tile(torch.from_numpy(image), SPEC).permute(1, 2, 0).numpy() * 255
    # Pillow rounds to whole levels after each direction.
    assert np.abs(found - expected).max() <= 1.01


@pytest.mark.parametrize("size", [(64, 64), (50, 300), (100, 131)])
def test_reducing_by_any_factor_equals_opencvs_area(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = cv2.resize(image.astype(np.float32), (28, 28), interpolation=cv2.INTER_AREA)
    found = canonical_tile(torch.from_numpy(image), SPEC).permute(1, 2, 0).numpy() * 255
    assert np.abs(found - expected).max() < 0.01


def test_enlarging_equals_torchs_bilinear(tiles: Pixels) -> None:
    batch = torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 255
    expected = torch.nn.functional.interpolate(batch, size=224, mode="bilinear", align_corners=False)
    assert torch.allclose(network_input(batch, SPEC), normalise(expected, SPEC), atol=2e-6)


@pytest.mark.parametrize(("source", "target"), [(224, 28), (28, 224), (64, 28), (17, 28), (28, 28)])
def test_resampling_keeps_constants_and_the_centre(source: int, target: int) -> None:
    for matrix in (area_matrix(source, target), resampling_matrix(source, target, triangle)):
        assert matrix.shape == (target, source)
        assert torch.allclose(matrix.sum(dim=1), torch.ones(target), atol=1e-6)
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
