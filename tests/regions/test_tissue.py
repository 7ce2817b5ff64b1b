"""Glass is left out, tissue is not, in every class of tissue."""

from pathlib import Path

import numpy as np
import pytest

from handler.classes import CODES
from regions.grid import Tile, grid_of
from regions.source import Source, open_source
from regions.tissue import THUMBNAIL_MPP, small_picture, thumbnail, tissue_mask, tissue_tiles
from tests.support.slides import mosaic, write_png
from training.data import PathMNIST


@pytest.fixture(scope="module")
def slide(shared: Path) -> Source:
    return open_source(shared / "slides" / "small_HE.svs")


def test_real_tiles_of_every_class_count_as_tissue(real_data: PathMNIST, tmp_path: Path) -> None:
    images, labels = real_data.test.images, real_data.test.labels
    write_png(tmp_path / "a.png", mosaic(images, len(images)), 4.0)
    source = open_source(tmp_path / "a.png")
    found = {tile.column for tile in tissue_tiles(source, grid_of(source), small_picture(source))}
    for class_id, code in enumerate(CODES):
        share = np.mean([index in found for index in np.flatnonzero(labels == class_id)])
        assert share >= 0.99, code


@pytest.mark.parametrize("glass", [(255, 255, 255), (243, 243, 245), (225, 222, 228), (238, 230, 236)])
def test_glass_of_any_scanner_is_left_out(glass: tuple[int, int, int], tmp_path: Path) -> None:
    noise = np.random.default_rng(4).normal(0, 2, (224 * 2, 224 * 3, 3))
    pixels = np.clip(np.array(glass) + noise, 0, 255).astype(np.uint8)
    pixels[224 + 40 : 224 + 150, 448 + 30 : 448 + 140] = (180, 80, 150)
    write_png(tmp_path / "a.png", pixels, 0.5)
    source = open_source(tmp_path / "a.png", 0.5)
    assert tissue_tiles(source, grid_of(source), small_picture(source)) == [Tile(1, 2)]


def test_on_the_real_slide_the_mask_follows_the_tissue(slide: Source) -> None:
    grid = grid_of(slide)
    found = {(tile.row, tile.column) for tile in tissue_tiles(slide, grid, small_picture(slide))}
    # The picture of the slide: the left and right margins are glass, the strand of tissue runs down its middle.
    assert not {(row, 0) for row in range(5)} & found
    assert not {(row, 8) for row in range(4)} & found
    assert {(row, 4) for row in range(13)} <= found
    assert 0.5 < len(found) / (grid.rows * grid.columns) < 0.7


def test_every_coloured_pixel_of_the_real_slide_is_in_a_tile_or_rare_in_its_place(slide: Source) -> None:
    grid = grid_of(slide)
    found = {(tile.row, tile.column) for tile in tissue_tiles(slide, grid, small_picture(slide))}
    for row in range(grid.rows):
        for column in range(grid.columns):
            left, top, right, bottom = grid.box(Tile(row, column))
            share = tissue_mask(slide.reader.read(0, left, top, right - left, bottom - top)).mean()
            assert ((row, column) in found) == (share >= 0.05) or 0.03 < share < 0.08


def test_the_thumbnail_shows_the_whole_image(tmp_path: Path) -> None:
    tiles = np.random.default_rng(6).integers(0, 256, (6, 28, 28, 3), dtype=np.uint8)
    write_png(tmp_path / "a.png", mosaic(tiles.repeat(8, axis=1).repeat(8, axis=2), 3), 0.5)
    small = thumbnail(open_source(tmp_path / "a.png", 0.5), THUMBNAIL_MPP)
    means = mosaic(tiles, 3).reshape(28, 2, 42, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - means).max() <= 1
