"""BMP: pixels of 16 and 32 bits are read by their masks here, the others by Pillow."""

import struct
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handler.api.colour import Colour
from handler.api.errors import RequestError
from handler.api.formats.picture import Picture, Raster, part, too_complex, unsupported

CORE_HEADER, OS2_HEADER, V5_HEADER = 12, 64, 124
INFO_HEADERS = (40, 52, 56, OS2_HEADER, 108, V5_HEADER)
RAW, RLE8, RLE4, BITFIELDS, JPEG, PNG, ALPHA_BITFIELDS = range(7)
# Bits a pixel by compression.
DEPTHS = {
    RAW: (1, 4, 8, 16, 24, 32),
    RLE8: (8,),
    RLE4: (4,),
    BITFIELDS: (16, 32),
    ALPHA_BITFIELDS: (16, 32),
}
MASKS = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}
# Pillow decodes runs in Python, about a million a second.
MAX_RUN_BYTES = 1 << 20


@dataclass(frozen=True)
class _Header:
    size: int
    pixels: int
    width: int
    height: int
    bits: int
    compression: int


def open_bmp(data: bytes) -> Picture:
    """Read the header."""
    pixels, size = struct.unpack("<II", part(data, 10, 8))
    if size == CORE_HEADER:
        width, height, _, bits = struct.unpack("<HHHH", part(data, 18, 8))
        header = _Header(size, pixels, width, height, bits, RAW)
    elif size in INFO_HEADERS:
        width, height, _, bits, compression = struct.unpack("<iiHHI", part(data, 18, 16))
        header = _Header(size, pixels, width, height, bits, compression)
    else:
        raise RequestError("image_unreadable", "The data is not an image: no BMP has such a header.", "data", 415)
    if header.compression in (JPEG, PNG):
        raise unsupported("A BMP that holds a JPEG or PNG")
    os2_compression = size == OS2_HEADER and header.compression > RLE4
    if header.bits not in DEPTHS.get(header.compression, ()) or os2_compression:
        raise unsupported(f"A BMP with {header.bits} bits a pixel and compression {header.compression}")
    if header.compression in (RLE8, RLE4) and len(data) - pixels > MAX_RUN_BYTES:
        raise too_complex(f"The BMP has more than {MAX_RUN_BYTES} bytes of runs.")
    return Picture(header.width, abs(header.height), lambda: _read(data, header))


def _read(data: bytes, header: _Header) -> Raster:
    colour = _colour(data, header)
    if header.bits in MASKS:
        samples, alpha = _by_masks(data, header)
        return Raster(samples, "RGB", alpha, colour)
    with Image.open(BytesIO(data), formats=("BMP",)) as image:
        return Raster(np.array(image.convert("RGB")), "RGB", colour=colour)


def _by_masks(data: bytes, header: _Header) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """RGB, and alpha if the file has any. Alpha that is 0 everywhere is unused space, as viewers take it."""
    height, bytes_each = abs(header.height), header.bits // 8
    row = -(-header.width * bytes_each // 4) * 4
    lines = np.frombuffer(part(data, header.pixels, row * height), np.uint8).reshape(height, row)
    words = lines[:: 1 if header.height < 0 else -1, : header.width * bytes_each].copy().view(f"<u{bytes_each}")
    masks = _masks(data, header)
    samples = np.stack([_channel(words, mask) for mask in masks[:3]], axis=-1)
    alpha = _channel(words, masks[3]) if masks[3] else None
    return samples, alpha if alpha is not None and alpha.any() else None


def _masks(data: bytes, header: _Header) -> tuple[int, ...]:
    if header.compression == RAW:
        return MASKS[header.bits]
    count = 4 if header.compression == ALPHA_BITFIELDS or header.size >= 56 else 3
    masks = struct.unpack(f"<{count}I", part(data, 54, 4 * count))
    return (*masks, 0)[:4] if any(masks) else MASKS[header.bits]


def _channel(words: NDArray[np.unsignedinteger], mask: int) -> NDArray[np.uint8]:
    """The bits under a mask, stretched to 0..255; of more than 8 bits the upper ones."""
    if not mask:
        return np.zeros(words.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    bits = mask.bit_length() - shift
    if mask >> shift != (1 << bits) - 1:
        raise unsupported("A BMP with a colour mask of separate bits")
    shift, bits = shift + max(0, bits - 8), min(bits, 8)
    stretched = np.rint(np.linspace(0, 255, 1 << bits)).astype(np.uint8)
    return stretched[words >> words.dtype.type(shift) & words.dtype.type((1 << bits) - 1)]


def _colour(data: bytes, header: _Header) -> Colour:
    """The ICC profile that a header of version 5 may point to."""
    if header.size != V5_HEADER or part(data, 14 + 56, 4) != b"DEBM":
        return None
    start, length = struct.unpack("<II", part(data, 14 + 112, 8))
    return part(data, 14 + start, length)
