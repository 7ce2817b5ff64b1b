"""Opens regions and slides: every file is a pyramid of levels that can be read piece by piece."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from regions.errors import RegionError
from regions.resolution import Mpp, require_mpp

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Level:
    """One level of a pyramid: its size in pixels, and how many pixels of level 0 one of its pixels covers."""

    width: int
    height: int
    scale_x: float
    scale_y: float


class Reader(Protocol):
    """What a file format offers. All coordinates are relative to the scanned area (`bounds`)."""

    @property
    def kind(self) -> str:
        """The reader and the format."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """From the finest to the coarsest; level 0 is the scanned area."""

    @property
    def bounds(self) -> tuple[int, int]:
        """Where the scanned area begins in the file's level 0 (MRXS, NDPI), in pixels."""

    @property
    def mpp(self) -> Mpp | None:
        """As the file states it."""

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """RGB `[height, width, 3]` from a place in the level's own pixels; white outside the image."""


@dataclass(frozen=True)
class Source:
    """An opened region or slide, with the size of a pixel of level 0."""

    path: Path
    reader: Reader
    mpp: Mpp

    @property
    def width(self) -> int:
        return self.reader.levels[0].width

    @property
    def height(self) -> int:
        return self.reader.levels[0].height

    def level_for(self, mpp: float) -> int:
        """The coarsest level whose pixels are at most so many micrometres; level 0 if all are larger."""
        size = max(self.mpp.x, self.mpp.y)
        fine = [
            index
            for index, level in enumerate(self.reader.levels)
            if size * max(level.scale_x, level.scale_y) <= mpp * 1.01
        ]
        return max(fine, default=0)


def open_source(path: Path, mpp: float | None = None) -> Source:
    """Open a region or slide; `mpp` overrides what the file says.

    Raises `RegionError`: `file_unreadable`, `format_unsupported`, `image_too_large`, and those of `require_mpp`.
    """
    reader = _open(path)
    return Source(path, reader, require_mpp(reader.mpp, mpp))


def _open(path: Path) -> Reader:
    from regions.openslide_reader import open_openslide
    from regions.picture_reader import open_picture
    from regions.tiff_reader import open_ome_tiff, open_tiff

    if not path.is_file():
        raise RegionError("file_unreadable", f"{path} is no file that can be read.")
    # OpenSlide reads OME-TIFF as well, but neither its size of a pixel nor its pyramid.
    openers: tuple[Callable[[Path], Reader | None], ...] = (open_ome_tiff, open_openslide, open_tiff, open_picture)
    for opener in openers:
        reader = opener(path)
        if reader is not None:
            return reader
    raise RegionError("format_unsupported", f"{path.name} is not a slide or an image of a supported format.")
