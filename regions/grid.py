"""Tiles of 112 x 112 micrometres, whatever the pyramid."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from PIL import Image

from regions.errors import RegionError
from regions.source import Pixels, Source

# Side of a tile in micrometres, and of the same tile in pixels as the network sees it (docs/preprocessing.md).
TILE_MICRONS = 112.0
TILE_SIDE = 28
# Pixels are read at no more micrometres than this, and reduced from there as the data set was. Levels of a scanner that
# are near 4 micrometres were averaged in another way (docs/regions.md has the agreement).
READ_MPP = 1.0
# Tiles of one row that are read together, so that memory does not grow with the width of a slide.
TILES_PER_READ = 32
# A side may lack this part of a pixel of its last tile, because sizes are rounded to whole pixels.
ROUNDING = 0.5


@dataclass(frozen=True)
class Tile:
    """A place in the grid."""

    row: int
    column: int


@dataclass(frozen=True)
class Grid:
    """Whole tiles from the image's upper left corner; `step_x` and `step_y` are a tile's sides in pixels of level 0."""

    rows: int
    columns: int
    step_x: float
    step_y: float

    def box(self, tile: Tile) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in whole pixels of level 0; neighbours share their edges."""
        left, right = (round(column * self.step_x) for column in (tile.column, tile.column + 1))
        top, bottom = (round(row * self.step_y) for row in (tile.row, tile.row + 1))
        return left, top, right, bottom


def grid_of(source: Source) -> Grid:
    """The grid of a source. Raises `RegionError` `region_too_small` if no tile fits."""
    step_x, step_y = TILE_MICRONS / source.mpp.x, TILE_MICRONS / source.mpp.y
    columns, rows = int((source.width + ROUNDING) / step_x), int((source.height + ROUNDING) / step_y)
    if rows == 0 or columns == 0:
        size = f"{source.width * source.mpp.x:.0f} x {source.height * source.mpp.y:.0f} micrometres"
        raise RegionError("region_too_small", f"The image shows {size}; one tile needs 112 x 112.")
    return Grid(rows, columns, step_x, step_y)


def read_tiles(source: Source, grid: Grid, tiles: Sequence[Tile], read_mpp: float = READ_MPP) -> Pixels:
    """Tiles in the order of rows and columns, uint8 `[N, 28, 28, 3]`."""
    return np.concatenate([_read_run(source, grid, run, read_mpp) for run in _runs(tiles)])


def _runs(tiles: Sequence[Tile]) -> Iterator[list[Tile]]:
    """Neighbours in a row."""
    for _, group in groupby(enumerate(tiles), key=lambda item: (item[1].row, item[1].column - item[0])):
        run = [tile for _, tile in group]
        for start in range(0, len(run), TILES_PER_READ):
            yield run[start : start + TILES_PER_READ]


def _read_run(source: Source, grid: Grid, run: Sequence[Tile], read_mpp: float) -> Pixels:
    index = source.level_for(read_mpp)
    level = source.reader.levels[index]
    step_x, step_y = grid.step_x / level.scale_x, grid.step_y / level.scale_y
    x, x_end = _span(run[0].column * step_x, (run[-1].column + 1) * step_x, level.width)
    y, y_end = _span(run[0].row * step_y, (run[0].row + 1) * step_y, level.height)
    piece = source.reader.read(index, x, y, x_end - x, y_end - y)
    top, bottom = run[0].row * step_y - y, min((run[0].row + 1) * step_y, level.height) - y
    return np.stack(
        [_reduce(piece, tile.column * step_x - x, min((tile.column + 1) * step_x, level.width) - x, top, bottom)
         for tile in run]
    )  # fmt: skip


def _span(start: float, end: float, size: int) -> tuple[int, int]:
    """The whole pixels that a stretch touches."""
    # Not the next pixel where a product such as 3 x 37.33 exceeds a whole number by a rounding error.
    return int(start + 1e-6), min(size, int(np.ceil(end - 1e-6)))


def _reduce(piece: Pixels, left: float, right: float, top: float, bottom: float) -> Pixels:
    """One tile of a piece by Pillow's bilinear `resize`, which made the data set; its neighbours do not bleed in."""
    x, x_end = _span(left, right, piece.shape[1])
    y, y_end = _span(top, bottom, piece.shape[0])
    box = (max(0.0, left - x), max(0.0, top - y), min(right, x_end) - x, min(bottom, y_end) - y)
    tile = Image.fromarray(piece[y:y_end, x:x_end])
    return np.asarray(tile.resize((TILE_SIDE, TILE_SIDE), Image.Resampling.BILINEAR, box=box))
