"""Directories of tags, as TIFF, BigTIFF and Exif store them (TIFF 6.0, section 2)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from handler.api.formats.picture import corrupt, part, too_complex

ORIENTATION = 274
EXIF = b"Exif\0\0"
MAX_DIRECTORIES = 256
MAX_ENTRIES = 1024
HEADERS: dict[bytes, Literal["<", ">"]] = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
# numpy's code for each field type; rational numbers are read as pairs.
TYPES = {
    1: "u1", 2: "u1", 3: "u2", 4: "u4", 5: "2u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 10: "2i4", 11: "f4", 12: "f8",
    13: "u4", 16: "u8", 17: "i8", 18: "u8",
}  # fmt: skip


@dataclass(frozen=True)
class Directory:
    """The tags of one page. Values are read when asked for."""

    data: bytes
    order: Literal["<", ">"]
    entries: NDArray[Any]
    start: int

    def values(self, tag: int, at_most: int | None = None) -> NDArray[Any]:
        """The first values of a tag, empty if there is no such tag. Raises `RequestError` if the file ends before."""
        rows = np.flatnonzero(self.entries["tag"] == tag)
        if not rows.size:
            return np.empty(0, np.int64)
        row = int(rows[0])
        entry = self.entries[row]
        if int(entry["type"]) not in TYPES:
            raise corrupt()
        dtype = np.dtype(TYPES[int(entry["type"])]).newbyteorder(self.order)
        inline = self.entries.dtype["value"].itemsize
        if dtype.itemsize * int(entry["count"]) <= inline:
            place = self.start + (row + 1) * self.entries.itemsize - inline
        else:
            place = int.from_bytes(entry["value"].tobytes(), "little" if self.order == "<" else "big")
        count = int(entry["count"]) if at_most is None else min(int(entry["count"]), at_most)
        return np.frombuffer(part(self.data, place, count * dtype.itemsize), dtype)

    def number(self, tag: int, default: int) -> int:
        """The first value of a tag of whole numbers."""
        values = self.values(tag, 1)
        return int(values[0]) if values.size and values.dtype.kind in "ui" and values.ndim == 1 else default

    def orientation(self) -> int:
        """Exif's orientation, 1 to 8. 1 if the tag says nothing valid, as viewers take it."""
        value = self.values(ORIENTATION)
        valid = value.shape == (1,) and value.dtype.kind == "u" and 1 <= value[0] <= 8
        return int(value[0]) if valid else 1


def directories(data: bytes) -> Iterator[Directory]:
    """The pages of a TIFF file in order. Ends at the first pointer that leads outside the file or back."""
    order = HEADERS.get(data[:4])
    if order is None:
        raise corrupt()
    big = b"+" in data[:4]
    head = np.dtype([("tag", "u2"), ("type", "u2"), ("count", "u8" if big else "u4"), ("value", "V8" if big else "V4")])
    entry, pointer, length = head.newbyteorder(order), *(("u8", "u8") if big else ("u4", "u2"))
    position = _number(data, 8 if big else 4, order + pointer)
    seen: set[int] = set()
    while position and position not in seen:
        if len(seen) == MAX_DIRECTORIES:
            raise too_complex(f"The TIFF has more than {MAX_DIRECTORIES} pages.")
        if seen and position >= len(data):
            return
        seen.add(position)
        count = _number(data, position, order + length)
        if count > MAX_ENTRIES:
            raise too_complex(f"A page of the TIFF has {count} tags; at most {MAX_ENTRIES} are accepted.")
        start = position + np.dtype(length).itemsize
        entries = np.frombuffer(part(data, start, count * entry.itemsize), entry)
        yield Directory(data, order, entries, start)
        end = start + count * entry.itemsize
        position = _number(data, end, order + pointer) if end + np.dtype(pointer).itemsize <= len(data) else 0


def exif_orientation(exif: bytes | None) -> int:
    """The orientation that an Exif block states. 1 if there is no block or it is damaged, as viewers take it."""
    block = exif or b""
    while block.startswith(EXIF):
        block = block[len(EXIF) :]
    try:
        return next(directories(block)).orientation()
    except Exception:
        return 1


def _number(data: bytes, start: int, dtype: str) -> int:
    return int(np.frombuffer(part(data, start, np.dtype(dtype).itemsize), dtype)[0])
