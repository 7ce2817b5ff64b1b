"""Slides with known contents: mosaics of tiles, as pyramidal TIFF, OME-TIFF, BigTIFF in strips and PNG."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from handler.model.preprocess import reducing_matrix

Pixels = NDArray[np.uint8]
# Side of TIFF's tiles.
TILE = 128


def mosaic(tiles: Pixels, columns: int) -> Pixels:
    """Tiles `[N, S, S, 3]` in rows, `[rows x S, columns x S, 3]`; the last row is filled with white."""
    count, side = tiles.shape[:2]
    rows = -(-count // columns)
    padded = np.full((rows * columns, side, side, 3), 255, np.uint8)
    padded[:count] = tiles
    return padded.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)


def enlarged(tiles: Pixels, factor: int) -> Pixels:
    """Tiles `[N, S, S, 3]` as originals whose reduction by Pillow's bilinear `resize` gives these tiles back.

    The data set's own tiles came from larger originals by that reduction. Its inverse of least norm is the mildest
    picture that could have been such an original; only where it leaves 0 to 255 is the tile not met exactly.
    """
    side = tiles.shape[1]
    inverse = np.linalg.pinv(reducing_matrix(side * factor, side).double().numpy())
    rows = np.moveaxis(tiles, -1, 1) @ inverse.T
    return np.clip(np.rint(np.moveaxis(inverse @ rows, 1, -1)), 0, 255).astype(np.uint8)


def write_pyramid(path: Path, pixels: Pixels, mpp: float) -> None:
    """A tiled TIFF with levels in directories of their own, as scanners write it and OpenSlide reads it."""
    with tifffile.TiffWriter(path) as file:
        for index, level in enumerate(_levels(pixels)):
            options = {"tile": (TILE, TILE), "subfiletype": min(index, 1), **_density(mpp * 2**index)}
            _write(file, level, options)


def write_ome(path: Path, pixels: Pixels, mpp: float, unit: str = "µm", planar: bool = False) -> None:
    """An OME-TIFF with its levels in SubIFDs."""
    levels = [np.moveaxis(level, -1, 0) if planar else level for level in _levels(pixels)]
    size = {"PhysicalSizeX": mpp, "PhysicalSizeXUnit": unit, "PhysicalSizeY": mpp, "PhysicalSizeYUnit": unit}
    options = {"tile": (TILE, TILE), "planarconfig": "SEPARATE" if planar else "CONTIG"}
    first = {"subifds": len(levels) - 1, "metadata": {"axes": "SYX" if planar else "YXS", **size}}
    with tifffile.TiffWriter(path, ome=True) as file:
        _write(file, levels[0], {**options, **first})
        for level in levels[1:]:
            _write(file, level, {**options, "subfiletype": 1})


def write_strips(path: Path, pixels: Pixels, mpp: float) -> None:
    """A BigTIFF in strips, which OpenSlide does not read."""
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        _write(file, pixels, {"rowsperstrip": 50, **_density(mpp)})


def write_png(path: Path, pixels: Pixels, mpp: float) -> None:
    """A PNG with its resolution in pHYs."""
    Image.fromarray(pixels).save(path, dpi=(25400 / mpp, 25400 / mpp))


WRITERS: dict[str, Callable[[Path, Pixels, float], None]] = {
    "pyramid.tif": write_pyramid,
    "levels.ome.tiff": write_ome,
    "strips.tif": write_strips,
    "picture.png": write_png,
}


def _write(file: tifffile.TiffWriter, pixels: Pixels, options: dict[str, Any]) -> None:
    file.write(pixels, **{"photometric": "rgb", "compression": "zlib", "metadata": None, **options})


def _density(mpp: float) -> dict[str, Any]:
    return {"resolution": (10000 / mpp, 10000 / mpp), "resolutionunit": "CENTIMETER"}


def _levels(pixels: Pixels) -> list[Pixels]:
    """Halves by averaging, as scanners make them."""
    levels = [pixels]
    while max(levels[-1].shape[:2]) > 2 * TILE:
        levels.append(np.asarray(Image.fromarray(levels[-1]).reduce(2)))
    return levels
