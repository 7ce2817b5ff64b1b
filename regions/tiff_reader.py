"""OME-TIFF, and TIFF in strips, BigTIFF included, of which OpenSlide reads nothing; piece by piece by tifffile."""

import math
import xml.etree.ElementTree as ElementTree
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

import numpy as np
import tifffile
from numpy.typing import NDArray

from regions.errors import RegionError
from regions.picture_reader import LIMITS
from regions.resolution import Mpp, mpp_of_tiff
from regions.source import Level, Pixels

# Decoded strips and tiles that are kept, because neighbouring pieces of an image share them.
CACHE_BYTES = 256 * 2**20
# Micrometres per unit of OME's PhysicalSize.
OME_UNITS = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "Å": 1e-4, "pm": 1e-6}


class TiffReader:
    """Reads the levels of one image of a file."""

    bounds = (0, 0)

    def __init__(self, file: tifffile.TiffFile, kind: str, mpp: Mpp | None) -> None:
        series = max(file.series, key=lambda item: item.keyframe.imagewidth * item.keyframe.imagelength)
        self._file = file
        self._pages = [level.keyframe for level in series.levels]
        for level, page in zip(series.levels, self._pages, strict=True):
            _require_layout(level, page)
        self._cache = SegmentCache(CACHE_BYTES)
        # Reading a segment moves the file's position.
        self._lock = Lock()
        self.kind = kind
        self.mpp = mpp
        width, height = self._pages[0].imagewidth, self._pages[0].imagelength
        self.levels = tuple(
            Level(page.imagewidth, page.imagelength, width / page.imagewidth, height / page.imagelength)
            for page in self._pages
        )

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        page = self._pages[level]
        channels = page.samplesperpixel
        piece = np.full((height, width, channels), np.iinfo(page.dtype).max, page.dtype)
        for index in _segments(page, x, y, width, height):
            samples, (sample, top, left) = self._segment(level, index)
            rows, columns = samples.shape[:2]
            from_y, to_y = max(y, top), min(y + height, top + rows)
            from_x, to_x = max(x, left), min(x + width, left + columns)
            target = slice(None) if page.planarconfig == tifffile.PLANARCONFIG.CONTIG else slice(sample, sample + 1)
            piece[from_y - y : to_y - y, from_x - x : to_x - x, target] = samples[
                from_y - top : to_y - top, from_x - left : to_x - left
            ]
        return _rgb(piece)

    def _segment(self, level: int, index: int) -> tuple[NDArray[np.unsignedinteger], tuple[int, int, int]]:
        """A decoded strip or tile `[h, w, C]`, cut to the image, and its sample, row and column."""
        known = self._cache.get((level, index))
        if known is not None:
            return known
        page = self._pages[level]
        try:
            data = self._bytes(page, index)
            decoded, place, shape = page.decode(data, index, jpegtables=page.jpegtables)
        except Exception as error:  # codecs have types of their own
            raise RegionError("file_unreadable", f"The file is damaged: {error}.") from error
        sample, _, top, left, _ = place
        _, rows, columns, channels = shape
        if decoded is None:
            samples = np.full((rows, columns, channels), np.iinfo(page.dtype).max, page.dtype)
        else:
            samples = decoded[0, :rows, :columns]
        samples = samples[: page.imagelength - top, : page.imagewidth - left]
        self._cache.put((level, index), (samples, (sample, top, left)))
        return samples, (sample, top, left)

    def _bytes(self, page: tifffile.TiffPage, index: int) -> bytes | None:
        size = page.databytecounts[index]
        if size == 0:
            return None
        with self._lock:
            self._file.filehandle.seek(page.dataoffsets[index])
            return self._file.filehandle.read(size)


Segment = tuple[NDArray[np.unsignedinteger], tuple[int, int, int]]


class SegmentCache:
    """The segments that were used last, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._segments: OrderedDict[tuple[int, int], Segment] = OrderedDict()
        self._lock = Lock()

    def get(self, key: tuple[int, int]) -> Segment | None:
        with self._lock:
            if key not in self._segments:
                return None
            self._segments.move_to_end(key)
            return self._segments[key]

    def put(self, key: tuple[int, int], segment: Segment) -> None:
        with self._lock:
            if key in self._segments:
                return
            self._segments[key] = segment
            self._bytes += segment[0].nbytes
            while self._bytes > self._limit and len(self._segments) > 1:
                _, (samples, _) = self._segments.popitem(last=False)
                self._bytes -= samples.nbytes


def open_ome_tiff(path: Path) -> TiffReader | None:
    """The largest image of an OME-TIFF; None for other files. Raises `RegionError` for a layout that is not read."""
    file = _open(path)
    if file is None or not file.is_ome:
        return None
    return TiffReader(file, "tifffile OME-TIFF", _ome_mpp(file) or _tag_mpp(file.pages.first))


def open_tiff(path: Path) -> TiffReader | None:
    """Any other TIFF; None for other files. Raises `RegionError` for a layout that is not read."""
    file = _open(path)
    return None if file is None else TiffReader(file, "tifffile TIFF", _tag_mpp(file.pages.first))


def _open(path: Path) -> tifffile.TiffFile | None:
    with path.open("rb") as file:
        if file.read(4) not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return None
    try:
        opened = tifffile.TiffFile(path)
        return opened if opened.series else None
    except Exception as error:  # tifffile raises many types on damaged files
        raise RegionError("file_unreadable", f"{path.name} cannot be opened: {error}.") from error


def _require_layout(series: tifffile.TiffPageSeries, page: tifffile.TiffPage) -> None:
    if len(series.pages) != 1 or page.imagedepth != 1:
        raise RegionError("format_unsupported", "The TIFF file has several pages or channels on pages of their own.")
    if page.dtype not in (np.uint8, np.uint16) or page.samplesperpixel not in (1, 3, 4):
        layout = f"{page.samplesperpixel} samples of type {page.dtype}"
        raise RegionError("format_unsupported", f"The TIFF file has {layout}; 8 or 16 bits in grey or RGB are read.")
    if math.prod(_segment_size(page)) > LIMITS.max_pixels:
        message = "A strip of the TIFF file has more pixels than are decoded at once; convert it to a tiled TIFF."
        raise RegionError("image_too_large", message)


def _segment_size(page: tifffile.TiffPage) -> tuple[int, int]:
    """Height and width of a strip or tile."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


def _segments(page: tifffile.TiffPage, x: int, y: int, width: int, height: int) -> Iterator[int]:
    """The indices of the strips or tiles that a window touches, in all planes."""
    rows, columns = _segment_size(page)
    down, across = -(-page.imagelength // rows), -(-page.imagewidth // columns)
    planes = 1 if page.planarconfig == tifffile.PLANARCONFIG.CONTIG else page.samplesperpixel
    for plane in range(planes):
        for row in range(max(0, y // rows), min(down, -(-(y + height) // rows))):
            for column in range(max(0, x // columns), min(across, -(-(x + width) // columns))):
                yield (plane * down + row) * across + column


def _rgb(samples: NDArray[np.unsignedinteger]) -> Pixels:
    eight = (samples if samples.dtype == np.uint8 else samples >> 8).astype(np.uint8, copy=False)
    return np.repeat(eight, 3, axis=2) if eight.shape[2] == 1 else np.ascontiguousarray(eight[..., :3])


def _tag_mpp(page: tifffile.TiffPage) -> Mpp | None:
    x, y, unit = (page.tags.valueof(code) for code in (282, 283, 296))
    return mpp_of_tiff(x, y, unit)


def _ome_mpp(file: tifffile.TiffFile) -> Mpp | None:
    """PhysicalSizeX and PhysicalSizeY of the first image."""
    try:
        pixels = ElementTree.fromstring(file.ome_metadata or "").find(".//{*}Pixels")
        if pixels is None:
            return None
        sides = [
            float(pixels.attrib[f"PhysicalSize{axis}"]) * OME_UNITS[pixels.attrib.get(f"PhysicalSize{axis}Unit", "µm")]
            for axis in "XY"
        ]
    except (ElementTree.ParseError, KeyError, ValueError):
        return None
    return Mpp(*sides)
