"""Slides that OpenSlide knows: SVS, NDPI, MRXS, DICOM, tiled TIFF and others."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openslide

from regions.errors import RegionError
from regions.resolution import Mpp
from regions.source import Level, Pixels

WHITE = (255, 255, 255)
# Decoded pieces of the file. Two rows of them, 256 pixels high, fit for a slide of 60,000 pixels across: a row of tiles
# ends inside a row of pieces, which the next row of tiles needs again.
CACHE_BYTES = 128 * 2**20


class OpenSlideReader:
    """Reads a slide by OpenSlide."""

    def __init__(self, slide: openslide.OpenSlide) -> None:
        self._slide = slide
        slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
        properties = slide.properties
        x, y, width, height = (_number(properties, f"openslide.bounds-{key}") for key in ("x", "y", "width", "height"))
        self.bounds = (int(x or 0), int(y or 0))
        size = (int(width or slide.dimensions[0]), int(height or slide.dimensions[1]))
        self.kind = f"openslide {properties[openslide.PROPERTY_NAME_VENDOR]}"
        self.mpp = _mpp(slide)
        self.levels = tuple(self._level(index, size) for index in range(slide.level_count))

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        scale = self.levels[level]
        corner = (self.bounds[0] + round(x * scale.scale_x), self.bounds[1] + round(y * scale.scale_y))
        try:
            picture = self._slide.read_region(corner, level, (width, height))
        except openslide.OpenSlideError as error:
            raise RegionError("file_unreadable", f"The slide is damaged: {error}.") from error
        pixels = picture.convert("RGB")
        # What was not scanned is transparent.
        alpha = picture.getchannel("A")
        if alpha.getextrema()[0] == 0:
            pixels.paste(WHITE, mask=alpha.point(lambda value: 255 * (value == 0)))
        return np.asarray(pixels)

    def _level(self, index: int, size: tuple[int, int]) -> Level:
        # OpenSlide's own factor, by which it finds places in a level; a place between two pixels is interpolated.
        scale = self._slide.level_downsamples[index]
        return Level(round(size[0] / scale), round(size[1] / scale), scale, scale)


def open_openslide(path: Path) -> OpenSlideReader | None:
    """The slide, or None if OpenSlide does not know the format. Raises `RegionError` if it is damaged."""
    try:
        return OpenSlideReader(openslide.OpenSlide(path))
    except openslide.OpenSlideUnsupportedFormatError:
        return None
    except openslide.OpenSlideError as error:
        raise RegionError("file_unreadable", f"{path.name} cannot be opened: {error}.") from error


def _mpp(slide: openslide.OpenSlide) -> Mpp | None:
    x = _number(slide.properties, openslide.PROPERTY_NAME_MPP_X)
    y = _number(slide.properties, openslide.PROPERTY_NAME_MPP_Y)
    return None if x is None or y is None else Mpp(x, y)


def _number(properties: Mapping[str, str], name: str) -> float | None:
    try:
        return float(properties[name])
    except (KeyError, ValueError):
        return None
