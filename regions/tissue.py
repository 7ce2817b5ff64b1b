"""Which tiles show tissue, from a small picture of the whole image."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regions.grid import Grid, Tile
from regions.source import Level, Pixels, Source

# Micrometres per pixel of the small picture: fine enough for the membranes of fat, coarse enough to level out noise.
THUMBNAIL_MPP = 8.0
# Pixels of level 0's resolution that are read at once.
BAND_PIXELS = 2**24
# A pixel is tissue if its channels differ by more than this, or if it is darker than that. Glass is bright and grey.
MIN_CHROMA = 20
MAX_GREY = 200
# A tile with a smaller share of tissue is glass.
MIN_SHARE = 0.05


def thumbnail(source: Source, mpp: float) -> Pixels:
    """The whole image at about so many micrometres per pixel, `[h, w, 3]`, read in bands."""
    index = source.level_for(mpp)
    level = source.reader.levels[index]
    width = max(1, round(source.width * source.mpp.x / mpp))
    height = max(1, round(source.height * source.mpp.y / mpp))
    return np.concatenate([_band(source, index, part, width, height) for part in _bands(level, height)])


def small_picture(source: Source) -> Pixels:
    """The whole image at the resolution of the tissue mask."""
    return thumbnail(source, max(THUMBNAIL_MPP, source.mpp.x))


def tissue_tiles(source: Source, grid: Grid, picture: Pixels) -> list[Tile]:
    """The tiles with tissue, by rows, from the source's small picture."""
    mask = tissue_mask(picture)
    # The mean of the mask over each tile: an image reduced by its boxes.
    size_x, size_y = mask.shape[1] / (source.width / grid.step_x), mask.shape[0] / (source.height / grid.step_y)
    box = (0.0, 0.0, min(grid.columns * size_x, mask.shape[1]), min(grid.rows * size_y, mask.shape[0]))
    shares = Image.fromarray(mask.astype(np.float32)).resize((grid.columns, grid.rows), Image.Resampling.BOX, box=box)
    return [Tile(int(row), int(column)) for row, column in np.argwhere(np.asarray(shares) >= MIN_SHARE)]


def all_tiles(grid: Grid) -> list[Tile]:
    return [Tile(row, column) for row in range(grid.rows) for column in range(grid.columns)]


def tissue_mask(picture: Pixels) -> NDArray[np.bool_]:
    """Where RGB `[H, W, 3]` is coloured or dark."""
    red, green, blue = np.moveaxis(picture, 2, 0)
    chroma = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    total = red.astype(np.uint16) + green + blue
    is_tissue: NDArray[np.bool_] = (chroma > MIN_CHROMA) | (total < 3 * MAX_GREY)
    return is_tissue


def _bands(level: Level, rows: int) -> Iterator[range]:
    """Rows of the small picture, so many that the level's pixels behind them fit into memory."""
    step = max(1, int(BAND_PIXELS / level.width * rows / level.height))
    for start in range(0, rows, step):
        yield range(start, min(rows, start + step))


def _band(source: Source, index: int, rows: range, width: int, height: int) -> Pixels:
    level = source.reader.levels[index]
    start, end = rows.start * level.height / height, rows.stop * level.height / height
    y, y_end = int(start), min(level.height, int(np.ceil(end)))
    piece = Image.fromarray(source.reader.read(index, 0, y, level.width, y_end - y))
    box = (0.0, start - y, float(level.width), min(end, level.height) - y)
    return np.asarray(piece.resize((width, len(rows)), Image.Resampling.BOX, box=box))
