"""Tiles show 112 x 112 micrometres, reduced as the data set was, whatever the file and its pyramid."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regions.errors import RegionError
from regions.grid import Grid, Tile, grid_of, read_tiles
from regions.source import open_source
from regions.tissue import all_tiles
from tests.conftest import Pixels
from tests.support.slides import WRITERS, enlarged, mosaic, write_png, write_pyramid, write_strips
from training.data import PathMNIST


def tiles_of(path: Path, mpp: float | None = None, read_mpp: float = 1.0) -> Pixels:
    source = open_source(path, mpp)
    grid = grid_of(source)
    return read_tiles(source, grid, all_tiles(grid), read_mpp)


@pytest.mark.parametrize("name", WRITERS)
def test_a_mosaic_of_real_tiles_is_cut_into_them(name: str, real_data: PathMNIST, tmp_path: Path) -> None:
    images = real_data.test.images
    WRITERS[name](tmp_path / name, mosaic(images, 31), 4.0)
    assert np.array_equal(tiles_of(tmp_path / name)[: len(images)], images)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("factor", [2, 4])
def test_finer_files_are_reduced_by_pillow_tile_by_tile(name: str, factor: int, tiles: Pixels, tmp_path: Path) -> None:
    # Noise, so that anything but the exact pixels would show; a neighbour that bled in, too.
    fine = np.random.default_rng(1).integers(0, 256, (18, 28 * factor, 28 * factor, 3), dtype=np.uint8)
    WRITERS[name](tmp_path / name, mosaic(fine, 6), 4.0 / factor)
    expected = [Image.fromarray(tile).resize((28, 28), Image.Resampling.BILINEAR) for tile in fine]
    assert np.array_equal(tiles_of(tmp_path / name), np.stack([np.asarray(tile) for tile in expected]))


def test_the_level_is_the_coarsest_that_is_fine_enough(tmp_path: Path) -> None:
    fine = np.random.default_rng(2).integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    write_pyramid(tmp_path / "a.tif", mosaic(fine, 2), 0.5)
    half = [Image.fromarray(tile).reduce(2).resize((28, 28), Image.Resampling.BILINEAR) for tile in fine]
    full = [Image.fromarray(tile).resize((28, 28), Image.Resampling.BILINEAR) for tile in fine]
    assert np.array_equal(tiles_of(tmp_path / "a.tif"), np.stack([np.asarray(tile) for tile in half]))
    assert np.array_equal(tiles_of(tmp_path / "a.tif", read_mpp=0.5), np.stack([np.asarray(tile) for tile in full]))


@pytest.mark.parametrize("mpp", [0.2627, 0.499, 0.7, 1.3])
def test_steps_that_are_no_whole_pixels_are_cut_between_pixels(mpp: float, tmp_path: Path) -> None:
    step = 112 / mpp
    pixels = np.random.default_rng(3).integers(0, 256, (int(3 * step) + 9, int(40 * step) + 5, 3), dtype=np.uint8)
    write_strips(tmp_path / "a.tif", pixels, mpp)
    found = tiles_of(tmp_path / "a.tif", mpp).reshape(3, 40, 28, 28, 3)
    for row, column in ((0, 0), (1, 7), (2, 32), (2, 38)):
        left, top = column * step, row * step
        window = pixels[int(top) : int(np.ceil(top + step)), int(left) : int(np.ceil(left + step))]
        box = (left - int(left), top - int(top), left - int(left) + step, top - int(top) + step)
        box = (*box[:2], min(box[2], window.shape[1]), min(box[3], window.shape[0]))
        expected = Image.fromarray(window).resize((28, 28), Image.Resampling.BILINEAR, box=box)
        assert np.abs(np.asarray(expected).astype(int) - found[row, column]).max() <= 1


def test_boxes_have_whole_pixels_and_leave_no_gap() -> None:
    grid = Grid(9, 9, 224.449, 224.449)
    for row in range(9):
        for column in range(8):
            _, top, right, bottom = grid.box(Tile(row, column))
            left, next_top, _, next_bottom = grid.box(Tile(row, column + 1))
            assert (right, top, bottom) == (left, next_top, next_bottom)


def test_a_tile_that_lacks_half_a_pixel_is_whole_and_a_smaller_rest_is_outside(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.full((448, 448, 3), 128, np.uint8), 0.4999)
    assert (grid_of(open_source(tmp_path / "a.png", 0.4999)).columns) == 2
    write_png(tmp_path / "b.png", np.full((447, 446, 3), 128, np.uint8), 0.5)
    grid = grid_of(open_source(tmp_path / "b.png", 0.5))
    assert (grid.rows, grid.columns) == (1, 1)


def test_an_image_smaller_than_a_tile_is_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.full((300, 200, 3), 128, np.uint8), 0.5)
    with pytest.raises(RegionError) as error:
        grid_of(open_source(tmp_path / "a.png", 0.5))
    assert error.value.code == "region_too_small"


def test_tiles_in_any_order_of_runs_are_the_same(tmp_path: Path, tiles: Pixels) -> None:
    write_png(tmp_path / "a.png", mosaic(enlarged(tiles, 2), 6), 2.0)
    source = open_source(tmp_path / "a.png", 2.0)
    grid = grid_of(source)
    whole = read_tiles(source, grid, all_tiles(grid))
    chosen = [Tile(0, 1), Tile(0, 2), Tile(0, 4), Tile(2, 5)]
    assert np.array_equal(read_tiles(source, grid, chosen), whole[[1, 2, 4, 17]])
