"""A map's cells as OME-TIFF: nine channels of logits, float32, NaN on glass."""

import hashlib
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from handler.classes import CODES
from regions.colours import BY_CLASS_ID
from regions.geojson import NAMESPACE
from regions.grid import TILE_MICRONS
from regions.tissue_map import TissueMap

# A file whose longer side has more cells gets levels of half the size, down to this.
LEVEL_SIDE = 512
TILE = (256, 256)


def write_ome_tiff(tissue_map: TissueMap, path: Path) -> None:
    """Write the cells with their size in micrometres; large maps with a pyramid."""
    levels = _pyramid(tissue_map.cells())
    options: dict[str, Any] = {"tile": TILE, "compression": "zlib", "photometric": "minisblack"}
    with tifffile.TiffWriter(path, ome=True, bigtiff=True) as file:
        file.write(levels[0], subifds=len(levels) - 1, metadata=_metadata(tissue_map, levels[0]), **options)
        for level in levels[1:]:
            file.write(level, subfiletype=1, **options)


def _metadata(tissue_map: TissueMap, cells: NDArray[np.float32]) -> dict[str, Any]:
    side = tissue_map.answers.cams.shape[-1] if tissue_map.answers else 1
    return {
        "axes": "CYX",
        # By content, so that the same map is the same file.
        "UUID": str(uuid.uuid5(NAMESPACE, hashlib.sha256(cells.tobytes()).hexdigest())),
        "Name": tissue_map.name,
        "PhysicalSizeX": TILE_MICRONS / side,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": TILE_MICRONS / side,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": list(CODES), "Color": [_ome_colour(colour) for colour in BY_CLASS_ID]},
    }


def _ome_colour(colour: tuple[int, int, int]) -> int:
    """RGBA as a signed integer of 32 bits."""
    return int.from_bytes(bytes([*colour, 255]), "big", signed=True)


def _pyramid(cells: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    levels = [cells]
    while max(levels[-1].shape[1:]) > LEVEL_SIDE:
        levels.append(_halved(levels[-1]))
    return levels


def _halved(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of two by two cells, without glass."""
    _, height, width = cells.shape
    padded = np.pad(cells, ((0, 0), (0, height % 2), (0, width % 2)), constant_values=np.nan)
    corners = [padded[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    known = [~np.isnan(corner) for corner in corners]
    count = np.sum(known, axis=0, dtype=np.float32)
    total = np.sum([np.where(*pair, np.float32(0)) for pair in zip(known, corners, strict=True)], axis=0)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
