"""Small files that ask for much work are refused, or cost no more than their pixels do."""

import struct
import subprocess
import sys
import time
import tracemalloc
import zlib

import numpy as np
import pytest

from handler.api.errors import RequestError
from handler.api.image import ImageLimits, decode_image
from tests.conftest import Pixels
from tests.support.images import Encode
from tests.support.png_files import SIGNATURE, chunk, write_png
from tests.support.tiff_files import Layout, page_tags, write_pages, write_tiff

LIMITS = ImageLimits()
SCAN = b"\xff\xda"
# Seconds of processor time: a refusal takes milliseconds, and each attack takes more than this if it runs.
QUICKLY = 0.5
MEGABYTES_16 = 16 << 20
SMALL = np.zeros((20, 20, 3), np.uint8)


def outcome(data: bytes) -> str:
    """The code of the error, or "read"; in little processor time and memory."""
    tracemalloc.start()
    start = time.process_time()
    try:
        decode_image(data, LIMITS)
    except RequestError as error:
        assert 400 <= error.status < 500
        return error.code
    else:
        return "read"
    finally:
        seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert seconds < QUICKLY
        assert peak < 4 * len(data) + (8 << 20)


def many_scans(side: int, count: int, encode: Encode) -> bytes:
    """A progressive JPEG of one colour, whose last scan comes `count` times."""
    data = encode(np.full((side, side, 3), 200, np.uint8), "JPEG", progressive=True)
    start = data.rindex(SCAN)
    return data[:start] + data[start:-2] * count + data[-2:]


@pytest.mark.parametrize(("side", "count"), [(4096, 2500), (4096, 30), (224, 2500), (224, 100)])
def test_a_jpeg_of_many_scans_is_refused(side: int, count: int, encode: Encode) -> None:
    assert outcome(many_scans(side, count, encode)) == "image_too_complex"


def test_scans_that_only_seem_to_be_some_do_not_count(tiles: Pixels, encode: Encode) -> None:
    data = encode(tiles[0], "JPEG")
    comment = SCAN * 20_000
    assert outcome(data[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + data[2:]) == "read"


@pytest.mark.parametrize(
    "tail",
    [b"\xff\xfe\0\2" * (MEGABYTES_16 // 4), b"\xff" * MEGABYTES_16, bytes(MEGABYTES_16), b"\xff\xe0" + bytes(99)],
)
def test_a_jpeg_of_markers_alone_is_refused(tail: bytes) -> None:
    assert outcome(b"\xff\xd8\xff\xe0\0\2" + tail) in {"image_too_complex", "image_truncated", "image_corrupt"}


@pytest.mark.parametrize("name", [b"tEXt", b"IDAT", b"prVt"])
def test_a_png_of_a_million_chunks_is_refused(name: bytes) -> None:
    assert outcome(write_png(SMALL, 8, 2, chunk(name, b"x") * 1_000_000)) == "image_too_complex"


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP", b"iTXt", b"eXIf"])
def test_what_a_png_has_compressed_beside_its_pixels_is_not_unpacked(name: bytes) -> None:
    bomb = zlib.compress(bytes(200 << 20), 9)
    content = {b"iTXt": b"text\0\1\0\0\0" + bomb, b"eXIf": b"MM\0*\0\0\0\x08\xff\xff" + bytes(MEGABYTES_16 // 2)}
    assert outcome(write_png(SMALL, 8, 2, chunk(name, content.get(name, b"name\0\0" + bomb)))) == "read"


def test_pixels_that_a_png_has_beyond_its_size_are_not_unpacked() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20, 20, 8, 2, 0, 0, 0))
    bomb = chunk(b"IDAT", zlib.compress(bytes(200 << 20), 9))
    assert outcome(SIGNATURE + header + bomb + chunk(b"IEND", b"")) == "read"


@pytest.mark.parametrize(("width", "height"), [(16, 1_000_000), (1_000_000, 16), (16, 16_385), (50_000, 50_000)])
def test_a_long_side_is_refused_before_anything_is_decoded(width: int, height: int) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    assert outcome(SIGNATURE + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")) == "image_too_large"
    assert outcome(write_pages([(page_tags(width, height), [b"x"])])) == "image_too_large"


def test_the_side_limit_is_inclusive() -> None:
    limits = ImageLimits(max_side=40)
    assert decode_image(write_png(np.zeros((40, 20, 1), np.uint8), 8, 0), limits).pixels.shape == (40, 20, 3)
    with pytest.raises(RequestError, match="at most 40"):
        decode_image(write_png(np.zeros((41, 20, 1), np.uint8), 8, 0), limits)


def test_a_tiff_of_many_pages_or_tags_is_refused() -> None:
    page = (page_tags(20, 20), [bytes(400)])
    assert outcome(write_pages([page] * 20_000)) == "image_too_complex"
    assert outcome(b"II*\0\x08\0\0\0\xff\xff" + bytes(12 * 0xFFFF + 4)) == "image_too_complex"


def test_a_tiff_whose_pages_lead_back_ends() -> None:
    data = bytearray(write_pages([(page_tags(20, 20), [bytes(400)])]))
    data[-4:] = data[4:8]
    assert outcome(bytes(data)) == "read"


def test_tags_that_are_not_needed_are_not_read() -> None:
    assert outcome(write_tiff(SMALL, Layout(photometric=2, tags={50_000: [7] * 4_000_000}))) == "read"


def test_a_tiff_of_a_million_strips_is_refused() -> None:
    tags = page_tags(16, 1_000_000) | {278: [1]}
    assert outcome(write_pages([(tags, [b"x"] * 1_000_000)])) == "image_too_large"
    tiles = page_tags(4096, 4096) | {322: [1], 323: [1]}
    assert outcome(write_pages([(tiles, [b"x"] * 100_000)])) == "image_too_complex"


@pytest.mark.parametrize("side", [20, 2000])
def test_a_tile_far_larger_than_its_picture_is_refused(side: int) -> None:
    tags = page_tags(side, side, compression=8) | {322: [60_000], 323: [60_000]}
    assert outcome(write_pages([(tags, [zlib.compress(bytes(9999))])])) == "image_too_complex"


def test_strips_that_share_their_bytes_are_refused() -> None:
    """Each of 16,384 strips would decompress the whole file."""
    tags = page_tags(20, 16_384, compression=32773) | {278: [1]}
    assert outcome(write_pages([(tags, [b"\x80" * 4_000_000] * 16_384)])) == "image_corrupt"


def test_a_tiff_does_not_hide_a_jpeg_of_many_scans(encode: Encode) -> None:
    segment = many_scans(224, 200, encode)
    tags = page_tags(224, 224, (8, 8, 8), 6, 7)
    assert outcome(write_pages([(tags, [segment])])) == "image_too_complex"


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(content)) + content for name, content in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def test_a_webp_of_many_frames_or_a_vast_canvas_is_refused() -> None:
    canvas = b"\x02\0\0\0" + b"\x1f\0\0" * 2
    assert outcome(riff((b"VP8X", canvas), *[(b"ANMF", bytes(16))] * 500_000)) == "image_too_complex"
    assert outcome(riff((b"VP8X", canvas), *[(b"ANMF", bytes(16))] * 5)) == "image_animated"
    assert outcome(riff((b"VP8X", bytes(4) + b"\xff" * 6))) == "image_too_large"


def test_a_bmp_of_endless_runs_is_refused() -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 100, 100, 1, 8, 1, 0, 0, 0, 0, 0)
    data = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54) + header + bytes(MEGABYTES_16)
    assert outcome(data) == "image_too_complex"


@pytest.mark.parametrize("tags", [200, 60_000])
def test_profiles_cost_little_whatever_they_hold(tags: int, encode: Encode) -> None:
    table = struct.pack(">I", tags) + struct.pack(">4sII", b"rTRC", 128, 4 << 20) * tags
    head = struct.pack(">I4sI4s4s4s", 1 << 20, b"none", 2 << 24, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    icc = (head.ljust(128, b"\0") + table).ljust(1 << 20, b"\1")
    assert outcome(encode(SMALL, "TIFF", icc_profile=icc)) == "read"


def test_reading_an_image_changes_no_setting_of_pillow() -> None:
    check = (
        "import warnings; import numpy; from PIL import Image, ImageFile;"
        "before = Image.MAX_IMAGE_PIXELS, list(warnings.filters); import handler.api.image;"
        "assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before; assert not ImageFile.LOAD_TRUNCATED_IMAGES"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
