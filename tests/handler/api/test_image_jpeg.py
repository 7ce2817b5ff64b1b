import struct
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from handler.api.errors import RequestError
from handler.api.image import ImageLimits, decode_image
from tests.conftest import Pixels
from tests.support.images import Encode

LIMITS = ImageLimits()
SCAN, END = b"\xff\xda", b"\xff\xd9"


def decode(data: bytes) -> NDArray[np.uint8]:
    return decode_image(data, LIMITS).pixels


def refusal(data: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode_image(data, LIMITS)
    return caught.value


def segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def after_start(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}])
def test_every_kind_of_scan_is_what_another_build_of_libjpeg_reads(
    subsampling: int, options: dict[str, object], tiles: Pixels, encode: Encode
) -> None:
    data = encode(tiles[0], "JPEG", subsampling=subsampling, **options)
    assert np.abs(decode(data).astype(int) - imagecodecs.jpeg8_decode(data)).max() <= 2


def test_a_lossless_jpeg_is_read(tiles: Pixels) -> None:
    assert np.array_equal(decode(bytes(imagecodecs.jpeg8_encode(tiles[0], lossless=True))), tiles[0])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (imagecodecs.jpeg8_encode(np.zeros((20, 20), np.uint16), bitspersample=12), "12 bits"),
        (imagecodecs.jpegls_encode(np.zeros((20, 20), np.uint8)), "JPEG-LS"),
    ],
)
def test_a_layout_that_is_not_read_is_named(data: bytes, said: str) -> None:
    error = refusal(bytes(data))
    assert (error.status, error.code) == (415, "image_mode_unsupported")
    assert said in error.message


@pytest.mark.parametrize(("frame", "said"), [(0xC9, "arithmetic"), (0xCA, "arithmetic"), (0xC5, "hierarchical")])
def test_a_coding_that_is_not_read_is_named(frame: int, said: str, tiles: Pixels, encode: Encode) -> None:
    assert said in refusal(encode(tiles[0], "JPEG").replace(b"\xff\xc0", bytes([0xFF, frame]), 1)).message


def test_cmyk_of_adobe_is_read() -> None:
    inks = np.zeros((32, 32, 4), np.uint8)
    inks[..., 1:3] = 255
    buffer = BytesIO()
    Image.frombytes("CMYK", (32, 32), inks.tobytes()).save(buffer, "JPEG", quality=95)
    assert np.abs(decode(buffer.getvalue()) - np.array([255, 0, 0])).max() <= 4


def multi_picture(images: int, offset: int, size: int) -> bytes:
    """The index of a multi-picture file (CIPA DC-007), which may be stale."""
    entries = b"".join(struct.pack("<IIIHH", 0x030000, size, offset if index else 0, 0, 0) for index in range(images))
    tags = struct.pack("<HHI4s", 0xB000, 7, 4, b"0100") + struct.pack("<HHII", 0xB001, 4, 1, images)
    tags += struct.pack("<HHII", 0xB002, 7, len(entries), 50)
    return segment(0xE2, b"MPF\0II*\0\x08\0\0\0" + struct.pack("<H", 3) + tags + bytes(4) + entries)


@pytest.mark.parametrize("second", [True, False])
def test_of_several_pictures_the_first_is_read(second: bool, tiles: Pixels, encode: Encode) -> None:
    data = encode(tiles[0], "JPEG")
    other = encode(Image.new("RGB", (160, 120)), "JPEG")
    indexed = after_start(data, multi_picture(2, len(data), len(other)))
    assert np.array_equal(decode(indexed + other if second else indexed), decode(data))


def test_what_follows_the_end_and_what_applications_wrote_changes_nothing(tiles: Pixels, encode: Encode) -> None:
    data = encode(tiles[0], "JPEG")
    notes = [segment(marker, SCAN * 300 + END) for marker in (0xE1, 0xE4, 0xED, 0xFE)]
    assert np.array_equal(decode(after_start(data, *notes) + b"anything" * 100), decode(data))


@pytest.mark.parametrize("first", [segment(0xED, b"Photoshop 3.0\0"), segment(0xE0, b"JFIF\0" + bytes(9))])
def test_bytes_between_segments_change_nothing(first: bytes, tiles: Pixels, encode: Encode) -> None:
    """Photoshop has written segments whose stated length is too short."""
    data = encode(tiles[0], "JPEG")
    assert np.array_equal(decode(after_start(data, first, b"\4\6\0\7")), decode(data))


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"quality": 100, "subsampling": 0}, {"restart_marker_blocks": 1}]
)
def test_a_missing_end_costs_nothing_and_missing_pixels_are_said(
    options: dict[str, object], tiles: Pixels, encode: Encode
) -> None:
    data = encode(tiles[0], "JPEG", **options)
    whole = decode(data)
    assert np.array_equal(decode(data[:-2]), whole)
    for length in range(len(data) // 2, len(data) - 2):
        try:
            found = decode(data[:length])
        except RequestError as error:
            assert error.code == "image_truncated"
        else:
            assert np.array_equal(found, whole), length


def test_a_progressive_file_without_its_last_scans_is_cut(tiles: Pixels, encode: Encode) -> None:
    data = encode(tiles[0], "JPEG", progressive=True)
    assert refusal(data[: data.rindex(SCAN)]).code == "image_truncated"


ORIENTED = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, 6, 0, 0)


@pytest.mark.parametrize(
    "exif",
    [
        ORIENTED[:12],
        ORIENTED[:24],
        b"Exif\0\0",
        b"Exif\0\0nonsense that is no header",
        ORIENTED.replace(struct.pack(">HHIH", 0x112, 3, 1, 6), struct.pack(">HHIH", 0x112, 3, 0, 6)),
        ORIENTED.replace(struct.pack(">HHIH", 0x112, 3, 1, 6), struct.pack(">HHIH", 0x112, 3, 2, 6)),
        ORIENTED.replace(struct.pack(">HHIH", 0x112, 3, 1, 6), struct.pack(">HHIH", 0x112, 3, 1, 9)),
        ORIENTED.replace(struct.pack(">HHIH", 0x112, 3, 1, 6), struct.pack(">HHIH", 0x112, 99, 1, 6)),
    ],
)
def test_damaged_exif_turns_nothing(exif: bytes, tiles: Pixels, encode: Encode) -> None:
    data = encode(tiles[0], "JPEG")
    assert np.array_equal(decode(after_start(data, segment(0xE1, exif))), decode(data))
    turned = np.rot90(decode(data), -1)
    assert np.array_equal(decode(after_start(data, segment(0xE1, ORIENTED))), turned)
