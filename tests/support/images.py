"""Image files for tests: the type of the encoder, a false header, and damage."""

import struct
import zlib
from collections.abc import Callable

import numpy as np

# The fixture `encode`: pixels, a format and Pillow's options to a file.
Encode = Callable[..., bytes]


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header states a size, with almost no data."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def damaged(file: bytes, seed: int) -> bytes:
    """An image file with flipped, truncated, removed or inserted bytes."""
    chance = np.random.default_rng(seed)
    data = bytearray(file)
    match seed % 4:
        case 0:
            for place in chance.integers(0, len(data), chance.integers(1, 20)):
                data[place] ^= int(chance.integers(1, 256))
        case 1:
            del data[int(chance.integers(0, len(data))) :]
        case 2:
            start = int(chance.integers(0, len(data)))
            del data[start : start + int(chance.integers(1, 64))]
        case _:
            start = int(chance.integers(0, len(data)))
            data[start:start] = chance.bytes(int(chance.integers(1, 64)))
    return bytes(data)
