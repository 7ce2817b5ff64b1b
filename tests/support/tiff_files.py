"""Writes TIFF files of any layout."""

import lzma
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import imagecodecs
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.unsignedinteger]
Tags = Mapping[int, Sequence[int] | bytes]
CODECS: dict[int, Callable[[bytes], bytes | bytearray]] = {
    1: bytes,
    5: imagecodecs.lzw_encode,
    8: zlib.compress,
    32773: imagecodecs.packbits_encode,
    34925: lzma.compress,
    50000: imagecodecs.zstd_encode,
}
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class Layout:
    """The layout of a file. `tile` and `rows` are the shape of a tile and the height of a strip, in pixels."""

    bits: int = 8
    photometric: int = 1
    extra: tuple[int, ...] = ()
    planar: bool = False
    compression: int = 1
    predictor: bool = False
    reversed_bits: bool = False
    order: str = "<"
    big: bool = False
    tile: tuple[int, int] | None = None
    rows: int | None = None
    tags: Tags = field(default_factory=dict)


def write_tiff(samples: Samples, layout: Layout) -> bytes:
    """A file of one page with samples `[H, W, C]`."""
    height, width, channels = samples.shape
    planes = [samples[..., index : index + 1] for index in range(channels)] if layout.planar else [samples]
    rows = layout.rows or height
    segments = [_encode(segment, layout) for plane in planes for segment in _cut(plane, layout.tile, rows)]
    tags: Tags = {
        256: [width],
        257: [height],
        258: [layout.bits] * channels,
        259: [layout.compression],
        262: [layout.photometric],
        277: [channels],
        284: [2 if layout.planar else 1],
        **({266: [2]} if layout.reversed_bits else {}),
        **({317: [2]} if layout.predictor else {}),
        **({338: layout.extra} if layout.extra else {}),
        **({322: [layout.tile[1]], 323: [layout.tile[0]]} if layout.tile else {278: [rows]}),
        **layout.tags,
    }
    return write_pages([(tags, segments)], layout.order, layout.big)


def write_pages(
    pages: Sequence[tuple[Tags, Sequence[bytes | bytearray]]], order: str = "<", big: bool = False
) -> bytes:
    """A file of pages, each with its tags and its strips or tiles. Repeated strips and tiles are stored once.

    Bytes are written as type 7, numbers as 16 or 32 bits.
    """
    pointer, count = ("Q", "Q") if big else ("I", "H")
    head = struct.pack(order + "2sHHHQ" if big else order + "2sHI", b"II" if order == "<" else b"MM", *(
        (43, 8, 0, 0) if big else (42, 0)
    ))  # fmt: skip
    file = bytearray(head)
    link = len(head) - struct.calcsize(pointer)
    for tags, segments in pages:
        stored: dict[int, int] = {}
        for segment in segments:
            if id(segment) not in stored:
                stored[id(segment)] = len(file)
                file += segment
        starts = [stored[id(segment)] for segment in segments]
        places = (324, 325) if 322 in tags else (273, 279)
        entries = {**tags, places[0]: starts, places[1]: [len(segment) for segment in segments]}
        table = b""
        for tag, values in sorted(entries.items()):
            kind, content = _field(values, order)
            room = struct.calcsize(pointer)
            if len(content) > room:
                place, content = len(file), content
                file += content
                content = struct.pack(order + pointer, place)
            table += struct.pack(order + "HH" + pointer, tag, kind, len(values)) + content.ljust(room, b"\0")
        struct.pack_into(order + pointer, file, link, len(file))
        file += struct.pack(order + count, len(entries)) + table
        link = len(file)
        file += bytes(struct.calcsize(pointer))
    return bytes(file)


def _field(values: Sequence[int] | bytes, order: str) -> tuple[int, bytes]:
    if isinstance(values, bytes):
        return 7, values
    kind = 3 if max(values, default=0) < 1 << 16 else 4
    return kind, struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)


def _cut(plane: Samples, tile: tuple[int, int] | None, rows: int) -> list[Samples]:
    if tile is None:
        return [plane[start : start + rows] for start in range(0, len(plane), rows)]
    height, width = (-(-size // side) * side for size, side in zip(plane.shape[:2], tile, strict=True))
    padded = np.zeros((height, width, plane.shape[2]), plane.dtype)
    padded[: plane.shape[0], : plane.shape[1]] = plane
    return [
        padded[top : top + tile[0], left : left + tile[1]]
        for top in range(0, height, tile[0])
        for left in range(0, width, tile[1])
    ]


def _encode(samples: Samples, layout: Layout) -> bytes:
    if layout.predictor:
        samples = np.diff(samples, axis=1, prepend=samples.dtype.type(0))
    data = bytes(CODECS[layout.compression](pack(samples, layout.bits, layout.order)))
    return data.translate(REVERSED) if layout.reversed_bits else data


def pack(samples: Samples, bits: int, order: str = "<") -> bytes:
    """Packed rows of samples of `bits` bits, most significant bit first, each row padded to a whole byte."""
    rows = samples.reshape(len(samples), -1)
    if bits in (8, 16):
        return rows.astype(f"{order}u{bits // 8}").tobytes()
    digits = rows[..., None] >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(digits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def page_tags(
    width: int, height: int, bits: Sequence[int] = (8,), photometric: int = 1, compression: int = 1
) -> dict[int, Sequence[int] | bytes]:
    """The tags of a page in one strip."""
    return {
        256: [width],
        257: [height],
        258: bits,
        259: [compression],
        262: [photometric],
        277: [len(bits)],
        278: [height],
    }
