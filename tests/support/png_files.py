"""Writes PNG files of any depth, colour type, filter and interlacing."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tests.support.tiff_files import Samples, pack

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Adam7: first row, first column, steps between rows and columns.
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def write_png(
    samples: Samples, depth: int, colour_type: int, *chunks: bytes, filtering: int = 0, interlaced: bool = False
) -> bytes:
    """A PNG of samples `[H, W, C]`, with the same filter in each row and the given chunks before the pixels."""
    height, width, _ = samples.shape
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    pixels = b"".join(_filtered(part, depth, filtering) for part in (_passes(samples) if interlaced else [samples]))
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b""))
    return SIGNATURE + b"".join(parts)


def _passes(samples: Samples) -> Iterator[Samples]:
    for top, left, down, across in PASSES:
        part = samples[top::down, left::across]
        if part.size:
            yield part


def _filtered(samples: Samples, depth: int, filtering: int) -> bytes:
    rows = np.frombuffer(pack(samples, depth, ">"), np.uint8).reshape(len(samples), -1).astype(int)
    step = max(1, samples.shape[2] * depth // 8)
    left, above = np.zeros_like(rows), np.zeros_like(rows)
    left[:, step:], above[1:] = rows[:, :-step], rows[:-1]
    corner = np.zeros_like(rows)
    corner[1:, step:] = rows[:-1, :-step]
    predicted = (0, left, above, (left + above) // 2, _paeth(left, above, corner))[filtering]
    kinds = np.full((len(rows), 1), filtering)
    return np.hstack((kinds, (rows - predicted) % 256)).astype(np.uint8).tobytes()


def _paeth(left: NDArray[np.int64], above: NDArray[np.int64], corner: NDArray[np.int64]) -> NDArray[np.int64]:
    estimate = left + above - corner
    distances = np.abs(np.stack((estimate - left, estimate - above, estimate - corner)))
    return np.choose(distances.argmin(axis=0), (left, above, corner))
