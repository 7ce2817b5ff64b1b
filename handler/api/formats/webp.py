"""WebP: the chunks are read here, the picture is decoded by libwebp through Pillow."""

import struct
from io import BytesIO

import numpy as np
from PIL import Image

from handler.api.formats.directory import exif_orientation
from handler.api.formats.picture import (
    Picture,
    Raster,
    corrupt,
    part,
    several_pictures,
    too_complex,
    truncated,
)

MAX_CHUNKS = 1000
HEADER = 12


def open_webp(data: bytes) -> Picture:
    """Read all chunks but no pixels."""
    chunks = _chunks(data)
    frames = sum(name == b"ANMF" for name, _ in chunks)
    if frames > 1:
        raise several_pictures(f"The WebP is an animation of {frames} frames. Send one still image.")
    return Picture(*_size(*chunks[0]), lambda: _read(data, dict(reversed(chunks))))


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """The names and contents of the chunks, in order."""
    end = int.from_bytes(part(data, 4, 4), "little") + 8
    if end > len(data):
        raise truncated()
    chunks: list[tuple[bytes, bytes]] = []
    position = HEADER
    while position + 8 <= end:
        if len(chunks) == MAX_CHUNKS:
            raise too_complex(f"The WebP has more than {MAX_CHUNKS} chunks.")
        name, length = struct.unpack("<4sI", part(data, position, 8))
        chunks.append((name, part(data, position + 8, length)))
        position += 8 + length + length % 2
    if not chunks:
        raise truncated()
    return chunks


def _size(name: bytes, content: bytes) -> tuple[int, int]:
    """Width and height: of the canvas (VP8X), or of the one lossy (VP8) or lossless (VP8L) frame."""
    if name == b"VP8X":
        bits = int.from_bytes(part(content, 4, 6), "little")
        return (bits & 0xFFFFFF) + 1, (bits >> 24) + 1
    if name == b"VP8 ":
        width, height = struct.unpack("<HH", part(content, 6, 4))
        return width & 0x3FFF, height & 0x3FFF
    if name == b"VP8L":
        bits = int.from_bytes(part(content, 1, 4), "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise corrupt()


def _read(data: bytes, chunks: dict[bytes, bytes]) -> Raster:
    with Image.open(BytesIO(data), formats=("WEBP",)) as image:
        samples = np.array(image)
    alpha = samples[..., 3] if samples.shape[2] == 4 else None
    return Raster(samples[..., :3], "RGB", alpha, chunks.get(b"ICCP"), exif_orientation(chunks.get(b"EXIF")))
