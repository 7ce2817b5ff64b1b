import struct
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from handler.api.errors import RequestError
from handler.api.image import ImageLimits, decode_image

LIMITS = ImageLimits()
RAW, RLE8, RLE4, BITFIELDS, EMBEDDED_JPEG, EMBEDDED_PNG, ALPHA_BITFIELDS = range(7)
Words = NDArray[np.unsignedinteger]


def decode(data: bytes) -> NDArray[np.uint8]:
    return decode_image(data, LIMITS).pixels


def refusal(data: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode_image(data, LIMITS)
    return caught.value


def write_bmp(
    words: Words,
    compression: int = RAW,
    masks: Sequence[int] = (),
    header: int = 40,
    top_down: bool = False,
    bits: int | None = None,
) -> bytes:
    """Pixels `[H, W]` of 16 or 32 bits. Masks lie within a header of 52 bytes or more, and behind one of 40."""
    height, width = words.shape
    rows = words if top_down else words[::-1]
    line = -(-rows.itemsize * width // 4) * 4
    pixels = b"".join(row.tobytes().ljust(line, b"\0") for row in rows)
    packed = struct.pack(f"<{len(masks)}I", *masks)
    behind = packed if header == 40 else b""
    size = (width, -height if top_down else height)
    fields = struct.pack("<IiiHHIIiiII", header, *size, 1, bits or 8 * words.itemsize, compression, 0, 0, 0, 0, 0)
    fields = (fields + (b"" if header == 40 else packed)).ljust(header, b"\0") + behind
    return b"BM" + struct.pack("<IHHI", 14 + len(fields) + len(pixels), 0, 0, 14 + len(fields)) + fields + pixels


def noise(bits: int, height: int = 17, width: int = 23) -> Words:
    words: Words = np.random.default_rng(bits).integers(0, 1 << bits, (height, width)).astype(f"<u{bits // 8}")
    return words


def channels(words: Words, masks: Sequence[int]) -> NDArray[np.float64]:
    """The values under the masks, as shares of their largest."""
    shifts = [(mask & -mask).bit_length() - 1 for mask in masks]
    values = [(words & mask) >> shift for mask, shift in zip(masks, shifts, strict=True)]
    tops = [mask >> shift for mask, shift in zip(masks, shifts, strict=True)]
    return np.stack([value / top for value, top in zip(values, tops, strict=True)], axis=-1)


MASKS = {
    16: [(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F), (0xF00, 0xF0, 0xF), (0x1F, 0x7E0, 0xF800)],
    32: [
        (0xFF0000, 0xFF00, 0xFF),
        (0xFF, 0xFF00, 0xFF0000),
        (0xFF000000, 0xFF0000, 0xFF00),
        (0x3FF00000, 0xFFC00, 0x3FF),
    ],
}


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("header", [40, 52, 56, 108, 124])
@pytest.mark.parametrize(("bits", "masks"), [(bits, masks) for bits, several in MASKS.items() for masks in several])
def test_colour_masks_are_read(bits: int, masks: Sequence[int], header: int, top_down: bool) -> None:
    words = noise(bits)
    found = decode(write_bmp(words, BITFIELDS, masks, header, top_down))
    assert np.abs(found - 255 * channels(words, masks)).max() <= 1


@pytest.mark.parametrize(("bits", "masks"), [(16, (0x7C00, 0x3E0, 0x1F)), (32, (0xFF0000, 0xFF00, 0xFF))])
def test_pixels_without_masks_have_the_usual_ones(bits: int, masks: Sequence[int]) -> None:
    words = noise(bits)
    expected = np.rint(255 * channels(words, masks))
    assert np.array_equal(decode(write_bmp(words)), expected)
    assert np.array_equal(decode(write_bmp(words, BITFIELDS, (0, 0, 0))), expected)


@pytest.mark.parametrize(
    ("bits", "masks"),
    [(16, (0x7C00, 0x3E0, 0x1F, 0x8000)), (16, (0xF00, 0xF0, 0xF, 0xF000)), (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000))],
)
@pytest.mark.parametrize(("compression", "header"), [(BITFIELDS, 56), (BITFIELDS, 124), (ALPHA_BITFIELDS, 40)])
def test_alpha_is_laid_on_white(bits: int, masks: Sequence[int], compression: int, header: int) -> None:
    words = noise(bits)
    values = channels(words, masks)
    expected = 255 * (values[..., :3] * values[..., 3:] + 1 - values[..., 3:])
    assert np.abs(decode(write_bmp(words, compression, masks, header)) - expected).max() <= 1.1


@pytest.mark.parametrize("bits", [16, 32])
def test_alpha_that_is_zero_everywhere_is_none(bits: int) -> None:
    masks = {16: (0x7C00, 0x3E0, 0x1F, 0x8000), 32: (0xFF0000, 0xFF00, 0xFF, 0xFF000000)}[bits]
    words = noise(bits) & np.array(~masks[3] & ((1 << bits) - 1)).astype(f"<u{bits // 8}")
    found = decode(write_bmp(words, BITFIELDS, masks, 124))
    assert np.abs(found - 255 * channels(words, masks[:3])).max() <= 1


def indexed(bits: int, compression: int, pixels: bytes, height: int = 18, width: int = 20) -> bytes:
    colours = np.random.default_rng(0).integers(0, 256, (1 << bits, 4), np.uint8).tobytes()
    start = 14 + 40 + len(colours)
    fields = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + fields + colours + pixels


def by_opencv(data: bytes) -> NDArray[np.uint8]:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert pixels is not None
    return pixels.astype(np.uint8)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes_are_what_opencv_reads(bits: int) -> None:
    line = -(-20 * bits // 32) * 4
    data = indexed(bits, RAW, np.random.default_rng(1).bytes(18 * line))
    assert np.array_equal(decode(data), by_opencv(data))


@pytest.mark.parametrize(("bits", "compression"), [(8, RLE8), (4, RLE4)])
def test_runs_are_what_opencv_reads(bits: int, compression: int) -> None:
    runs = b"".join(bytes((12, row + 16)) + bytes((8, 7)) + b"\0\0" for row in range(18)) + b"\0\1"
    data = indexed(bits, compression, runs)
    assert np.array_equal(decode(data), by_opencv(data))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (write_bmp(noise(16), bits=2), "2 bits"),
        (write_bmp(noise(32), bits=64), "64 bits"),
        (write_bmp(noise(32), EMBEDDED_JPEG), "JPEG or PNG"),
        (write_bmp(noise(32), EMBEDDED_PNG), "JPEG or PNG"),
        (write_bmp(noise(32), 11), "compression 11"),
        (write_bmp(noise(32), BITFIELDS, (0xF0F000, 0xFF, 0xFF)), "separate bits"),
    ],
)
def test_a_layout_that_is_not_read_is_named(data: bytes, said: str) -> None:
    error = refusal(data)
    assert (error.status, error.code) == (415, "image_mode_unsupported")
    assert said in error.message


def test_a_cut_file_is_cut_and_text_is_no_image() -> None:
    data = write_bmp(noise(32))
    assert refusal(data[:-9]).code == "image_truncated"
    assert refusal(b"BMW and other makes of cars, by the number of their seats").code == "image_unreadable"
