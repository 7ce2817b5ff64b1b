"""Strips and tiles of a TIFF page to its samples. libtiff decompresses them through Pillow; the rest is numpy.

Pillow reads few layouts of samples. So it is given a TIFF that holds the same compressed segments below each other and
calls their bytes grey pixels, and the samples are taken out of these bytes here.
"""

import struct
from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from handler.api.colour import Samples, blocks
from handler.api.formats.directory import Directory
from handler.api.formats.picture import corrupt, part, too_complex
from handler.api.formats.tiff_layout import (
    BITS,
    BLACK_IS_ZERO,
    CCITT,
    CHANNELS,
    COMPRESSION,
    FILL_ORDER,
    HEIGHT,
    HORIZONTAL,
    JPEG,
    PHOTOMETRIC,
    RAW,
    RGB,
    ROWS,
    SEPARATED,
    SUBSAMPLING,
    WIDTH,
    YCBCR,
    Layout,
)

STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES, T4_OPTIONS, T6_OPTIONS, JPEG_TABLES = (
    273,
    279,
    324,
    325,
    292,
    293,
    347,
)
MAX_SEGMENTS = 1 << 16
# Tiles may cover four times the picture, and a small picture may have a tile of 1024 x 1024.
MAX_COVER = 4
SMALL_COVER = 1 << 20
# A JPEG of one scan for each channel at most; TIFF allows no progressive ones.
MAX_SCANS = 4
START_OF_SCAN = b"\xff\xda"
REVERSED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]


def read_samples(page: Directory, layout: Layout) -> Samples:
    """Samples `[H, W, C]` as stored. YCbCr in JPEG becomes RGB; other subsampled YCbCr is `[H / v, W / h, h v + 2]`."""
    _check_segments(layout)
    planes = layout.channels if layout.planar else 1
    return np.concatenate([_Plane(page, layout, index, planes).read() for index in range(planes)], axis=2)


def _check_segments(layout: Layout) -> None:
    """Bound the number of strips or tiles, and the pixels by which tiles hang over the edges of the picture."""
    width, height = layout.segment
    horizontal, vertical = layout.subsampling
    if not width or not height:
        raise corrupt()
    whole = layout.tiled or height < layout.height
    if (whole and height % vertical) or (layout.tiled and width % horizontal):
        raise corrupt()
    count = -(-layout.width // width) * -(-layout.height // height)
    most = max(MAX_COVER * layout.width * layout.height, SMALL_COVER)
    if count * layout.channels > MAX_SEGMENTS or count * width * height > most:
        raise too_complex(f"The TIFF cuts {layout.width}x{layout.height} pixels into parts of {width}x{height}.")


class _Plane:
    """The segments that hold all channels, or one of them. Sizes are in cells: a pixel, or a block of YCbCr."""

    def __init__(self, page: Directory, layout: Layout, index: int, planes: int) -> None:
        self._page, self._layout = page, layout
        horizontal, vertical = layout.subsampling
        subsampled = layout.subsampling != (1, 1)
        self._cell = horizontal * vertical + 2 if subsampled else layout.channels // planes
        self._columns, self._lines = -(-layout.segment[0] // horizontal), -(-layout.segment[1] // vertical)
        self._width, self._height = -(-layout.width // horizontal), -(-layout.height // vertical)
        self._across, self._down = -(-self._width // self._columns), -(-self._height // self._lines)
        count = self._across * self._down
        # Tiles are all whole; the last strip ends with the picture.
        self._all_lines = count * self._lines if layout.tiled else self._height
        self._row_bytes = -(-self._columns * self._cell * layout.bits // 8)
        self._chosen = slice(index * count, (index + 1) * count)

    def read(self) -> Samples:
        samples = self._samples().reshape(self._all_lines, self._columns, self._cell)
        if self._layout.compression != JPEG and self._layout.predictor == HORIZONTAL:
            samples = np.cumsum(samples, axis=1, dtype=samples.dtype)
        if self._layout.tiled:
            grid = samples.reshape(self._down, self._across, self._lines, self._columns, self._cell)
            samples = grid.swapaxes(1, 2).reshape(self._down * self._lines, self._across * self._columns, self._cell)
        return samples[: self._height, : self._width]

    def _samples(self) -> Samples:
        layout = self._layout
        if layout.compression == RAW:
            return _unpack(self._raw_rows(), layout.bits, self._columns * self._cell, self._page.order)
        if layout.compression == JPEG:
            return self._decode(self._columns, [8] * self._cell, self._jpeg_tags())
        if layout.compression in CCITT:
            options = {tag: self._page.values(tag, 1).tolist() for tag in (T4_OPTIONS, T6_OPTIONS)}
            return self._decode(self._columns, [1], {PHOTOMETRIC: [BLACK_IS_ZERO], **options}).astype(np.uint8)
        rows = self._decode(self._row_bytes, [8], {PHOTOMETRIC: [BLACK_IS_ZERO]})
        return _unpack(rows, layout.bits, self._columns * self._cell, self._page.order)

    def _places(self) -> list[tuple[int, int]]:
        """Where each segment starts, and its length in the file."""
        tags = (TILE_OFFSETS, TILE_BYTES) if self._layout.tiled else (STRIP_OFFSETS, STRIP_BYTES)
        starts, lengths = (self._page.values(tag, self._chosen.stop)[self._chosen] for tag in tags)
        if len(starts) < self._chosen.stop - self._chosen.start:
            raise corrupt()
        if len(lengths) < len(starts):
            lengths = np.full(len(starts), 0)
        return list(zip(starts.tolist(), lengths.tolist(), strict=True))

    def _raw_rows(self) -> NDArray[np.uint8]:
        """Segments without compression; their stated lengths are not needed."""
        lines = [self._lines] * (self._across * self._down)
        if not self._layout.tiled:
            lines[-1] = self._height - self._lines * (len(lines) - 1)
        segments = [
            part(self._page.data, start, count * self._row_bytes)
            for (start, _), count in zip(self._places(), lines, strict=True)
        ]
        rows = np.frombuffer(b"".join(segments), np.uint8).reshape(self._all_lines, self._row_bytes)
        return REVERSED[rows] if self._layout.reversed_bits else rows

    def _jpeg_tags(self) -> dict[int, Sequence[int] | bytes]:
        photometric = {1: BLACK_IS_ZERO, 3: RGB, 4: SEPARATED}[self._cell]
        if self._layout.photometric == YCBCR and self._cell == 3:
            photometric = YCBCR
        return {
            PHOTOMETRIC: [photometric],
            SUBSAMPLING: self._page.values(SUBSAMPLING, 2).tolist() if photometric == YCBCR else [],
            JPEG_TABLES: self._page.values(JPEG_TABLES).tobytes(),
        }

    def _decode(self, width: int, bits: list[int], tags: Mapping[int, Sequence[int] | bytes]) -> Samples:
        """Decompress all segments, as one strip each of a picture `width` wide."""
        segments = self._compressed()
        if self._layout.compression == JPEG and any(part.count(START_OF_SCAN) > MAX_SCANS for part in segments):
            raise too_complex("The TIFF holds JPEG strips or tiles of many scans.")
        file = _tiff(
            {
                WIDTH: [width],
                HEIGHT: [self._all_lines],
                BITS: bits,
                COMPRESSION: [self._layout.compression],
                FILL_ORDER: [2 if self._layout.reversed_bits else 1],
                CHANNELS: [len(bits)],
                ROWS: [self._lines],
                **tags,
            },
            segments,
        )
        with TiffImageFile(BytesIO(file)) as image:
            return np.array(image)

    def _compressed(self) -> list[bytes]:
        places, data = self._places(), self._page.data
        if not all(length for _, length in places) or sum(length for _, length in places) > len(data):
            raise corrupt()
        return [part(data, start, length) for start, length in places]


def _unpack(rows: NDArray[np.uint8], bits: int, count: int, order: str) -> Samples:
    """Rows of bytes to rows of `count` samples, which are packed from the upper bit on."""
    if bits == 8:
        return rows
    if bits == 16:
        return rows.view(f"{order}u2").astype(np.uint16)
    first = np.arange(count) * bits
    shift = (24 - bits - first % 8).astype(np.uint32)
    samples = np.empty((len(rows), count), np.uint8 if bits < 8 else np.uint16)
    for block in blocks(samples):
        padded = np.pad(rows[block], ((0, 0), (0, 2))).astype(np.uint32)
        upper, middle, lower = (padded[:, first // 8 + offset] for offset in range(3))
        samples[block] = ((upper << 16 | middle << 8 | lower) >> shift) & ((1 << bits) - 1)
    return samples


def _tiff(tags: Mapping[int, Sequence[int] | bytes], segments: list[bytes]) -> bytes:
    """A little-endian TIFF of one page with the given strips. All numbers are 32 bits wide."""
    lengths = [len(segment) for segment in segments]
    starts = (8 + np.cumsum([0, *lengths[:-1]])).tolist()
    body = bytearray(b"".join(segments))
    entries = []
    for tag, values in sorted({**tags, STRIP_OFFSETS: starts, STRIP_BYTES: lengths}.items()):
        kind, content = (7, values) if isinstance(values, bytes) else (4, struct.pack(f"<{len(values)}I", *values))
        if not values:
            continue
        if len(content) > 4:
            content, place = struct.pack("<I", 8 + len(body)), content
            body += place
        entries.append(struct.pack("<HHI4s", tag, kind, len(values), content))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return struct.pack("<2sHI", b"II", 42, 8 + len(body)) + body + directory
