import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from handler.api.errors import RequestError
from handler.api.image import ImageLimits, decode_image
from tests.conftest import Pixels

LIMITS = ImageLimits()
Encode = Callable[..., bytes]


def pixels_of(data: bytes, limits: ImageLimits = LIMITS) -> NDArray[np.uint8]:
    return decode_image(data, limits).pixels


def code_of(data: bytes, limits: ImageLimits = LIMITS) -> str:
    with pytest.raises(RequestError) as caught:
        decode_image(data, limits)
    assert 400 <= caught.value.status < 500
    return caught.value.code


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
def test_lossless_formats_keep_every_pixel(file_format: str, tiles: Pixels, encode: Encode) -> None:
    assert np.array_equal(pixels_of(encode(tiles[0], file_format)), tiles[0])


def test_lossless_webp_keeps_every_pixel(tiles: Pixels, encode: Encode) -> None:
    assert np.array_equal(pixels_of(encode(tiles[0], "WEBP", lossless=True)), tiles[0])


def test_jpeg_comes_close(tiles: Pixels, encode: Encode) -> None:
    found = pixels_of(encode(tiles[0], "JPEG", quality=95, subsampling=0))
    assert np.abs(found.astype(int) - tiles[0]).mean() < 5


def test_grey_is_repeated_in_all_channels(encode: Encode) -> None:
    grey = np.arange(28 * 28, dtype=np.uint16).reshape(28, 28).astype(np.uint8)
    assert np.array_equal(pixels_of(encode(grey)), np.repeat(grey[..., None], 3, axis=2))


def test_sixteen_bit_grey_keeps_its_upper_byte(encode: Encode) -> None:
    deep = (np.arange(28 * 28).reshape(28, 28) * 80).astype(np.uint16)
    for file_format in ("PNG", "TIFF"):
        found = pixels_of(encode(Image.fromarray(deep), file_format))
        assert np.array_equal(found[..., 0], (deep >> 8).astype(np.uint8))


def test_alpha_is_laid_on_white(encode: Encode) -> None:
    layer = np.zeros((20, 20, 4), dtype=np.uint8)
    layer[:10, :, 3] = 255
    found = pixels_of(encode(Image.fromarray(layer)))
    assert (found[:10] == 0).all()
    assert (found[10:] == 255).all()


def test_a_palette_with_transparency_is_laid_on_white(encode: Encode) -> None:
    image = Image.new("P", (20, 20), 0)
    image.paste(1, (0, 10, 20, 20))
    image.putpalette([10, 20, 30, 40, 50, 60] + [0] * 762)
    assert (pixels_of(encode(image))[:10] == [10, 20, 30]).all()
    found = pixels_of(encode(image, transparency=0))
    assert (found[:10] == 255).all()
    assert (found[10:] == [40, 50, 60]).all()


def test_cmyk_becomes_rgb(encode: Encode) -> None:
    found = pixels_of(encode(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "TIFF"))
    assert (found == [255, 0, 0]).all()


def test_exif_rotation_is_applied(encode: Encode) -> None:
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[:, :15] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    found = pixels_of(encode(Image.fromarray(pixels), "JPEG", exif=exif, quality=95))
    assert found.shape == (30, 20, 3)
    assert found[:10].mean() > 240
    assert found[20:].mean() < 15


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "image_missing"),
        (b"hello", "image_unreadable"),
        (b"%PDF-1.7", "image_unreadable"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image_unreadable"),
        (b"\x89PNG\r\n\x1a\n", "image_truncated"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, code: str) -> None:
    assert code_of(data) == code


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_a_file_cut_anywhere_gives_a_client_error_or_all_its_pixels(file_format: str, encode: Encode) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(noise, file_format)
    whole = pixels_of(data)
    for length in range(1, len(data), len(data) // 60):
        try:
            found = pixels_of(data[:length])
        except RequestError as error:
            assert error.code in {"image_truncated", "image_corrupt", "image_unreadable"}
        else:
            assert np.array_equal(found, whole), f"{length} of {len(data)} bytes gave other pixels"


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "BMP"])
def test_a_file_cut_in_its_pixels_is_truncated(file_format: str, encode: Encode) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(noise, file_format)
    assert code_of(data[: len(data) // 2]) == "image_truncated"


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    assert code_of(png_header(50_000, 50_000)) == "image_too_large"


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def test_the_pixel_limit_is_inclusive(encode: Encode) -> None:
    data = encode(np.zeros((20, 30, 3), dtype=np.uint8))
    assert pixels_of(data, ImageLimits(max_pixels=600)).shape == (20, 30, 3)
    assert code_of(data, ImageLimits(max_pixels=599)) == "image_too_large"


def test_a_tiny_image_is_refused(encode: Encode) -> None:
    assert code_of(encode(np.zeros((1, 1, 3), dtype=np.uint8))) == "image_too_small"


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused(file_format: str, tiles: Pixels, encode: Encode) -> None:
    frames = [Image.fromarray(tile) for tile in tiles[:2]]
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:])
    assert code_of(data) == "image_animated"


def test_a_gif_is_not_supported(tiles: Pixels, encode: Encode) -> None:
    assert code_of(encode(tiles[0], "GIF")) == "image_unreadable"


def test_floating_point_pixels_have_no_defined_range(encode: Encode) -> None:
    assert code_of(encode(Image.new("F", (20, 20), 0.5), "TIFF")) == "image_mode_unsupported"
