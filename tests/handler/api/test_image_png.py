"""Every PNG of the specification's tables, written chunk by chunk."""

import itertools
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from handler.api.errors import RequestError
from handler.api.image import ImageLimits, decode_image
from tests.support.png_files import CHANNELS, SIGNATURE, chunk, write_png
from tests.support.tiff_files import Samples

LIMITS = ImageLimits()
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
TABLE = [(colour_type, depth) for colour_type, depths in DEPTHS.items() for depth in depths]


def decode(data: bytes) -> NDArray[np.uint8]:
    return decode_image(data, LIMITS).pixels


def refusal(data: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode_image(data, LIMITS)
    return caught.value


def noise(depth: int, channels: int, height: int = 19, width: int = 37) -> Samples:
    dtype = np.uint8 if depth <= 8 else np.uint16
    return np.random.default_rng(depth).integers(0, 1 << depth, (height, width, channels)).astype(dtype)


def in_8_bits(samples: Samples, depth: int) -> NDArray[np.int64]:
    """16 bits keep the upper 8; fewer than 8 are stretched."""
    return samples.astype(int) >> 8 if depth == 16 else samples.astype(int) * 255 // ((1 << depth) - 1)


def on_white(colours: NDArray[np.int64], alpha: NDArray[np.int64]) -> NDArray[np.float64]:
    return (colours * alpha + 255 * (255 - alpha)) / 255


@pytest.mark.parametrize(("filtering", "interlaced"), list(itertools.product(range(5), (False, True))))
@pytest.mark.parametrize(("colour_type", "depth"), TABLE)
def test_every_depth_and_colour_type_is_read(colour_type: int, depth: int, filtering: int, interlaced: bool) -> None:
    samples = noise(depth, CHANNELS[colour_type])
    colours = np.random.default_rng(9).integers(0, 256, (1 << depth if colour_type == PALETTE else 1, 3), np.uint8)
    chunks = [chunk(b"PLTE", colours.tobytes())] if colour_type == PALETTE else []
    data = write_png(samples, depth, colour_type, *chunks, filtering=filtering, interlaced=interlaced)
    levels = in_8_bits(samples, depth)
    if colour_type == PALETTE:
        expected = colours[samples[..., 0]].astype(float)
    elif colour_type in (GREY_ALPHA, RGB_ALPHA):
        expected = on_white(levels[..., :-1], levels[..., -1:])
    else:
        expected = levels.astype(float)
    assert np.abs(decode(data) - expected).max() <= 0.51
    if depth >= 8 and colour_type != PALETTE:
        assert np.array_equal(imagecodecs.png_decode(data), samples.squeeze())


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour_type", "depth"), [(t, d) for t, d in TABLE if t in (GREY, RGB)])
def test_the_transparent_colour_is_compared_at_the_files_own_depth(
    colour_type: int, depth: int, interlaced: bool
) -> None:
    samples = noise(depth, CHANNELS[colour_type])
    key = samples[3, 5]
    if depth == 16:
        # Equal in the upper byte alone.
        samples[4, 5] = key ^ 1
    data = write_png(samples, depth, colour_type, chunk(b"tRNS", key.astype(">u2").tobytes()), interlaced=interlaced)
    transparent = (samples == key).all(axis=2)
    expected = np.where(transparent[..., None], 255, in_8_bits(samples, depth))
    assert transparent[3, 5]
    assert np.array_equal(decode(data), np.broadcast_to(expected, (*samples.shape[:2], 3)))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_only_the_low_bits_of_a_transparent_colour_count(depth: int) -> None:
    samples = noise(depth, 1)
    plain, padded = (chunk(b"tRNS", struct.pack(">H", key)) for key in (1, 1 | 0xFF << depth))
    assert np.array_equal(
        decode(write_png(samples, depth, GREY, plain)), decode(write_png(samples, depth, GREY, padded))
    )


@pytest.mark.parametrize("depth", DEPTHS[PALETTE])
def test_a_palette_has_an_opacity_for_each_colour(depth: int) -> None:
    samples = noise(depth, 1)
    colours = np.random.default_rng(9).integers(0, 256, (1 << depth, 3), np.uint8)
    opacities = np.random.default_rng(8).integers(0, 256, (1 << depth) - 1, np.uint8)
    data = write_png(samples, depth, PALETTE, chunk(b"PLTE", colours.tobytes()), chunk(b"tRNS", opacities.tobytes()))
    alpha = np.append(opacities, 255)[samples].astype(int)
    assert np.abs(decode(data) - on_white(colours[samples[..., 0]].astype(int), alpha)).max() <= 0.51


@pytest.mark.parametrize("depth", [8, 16])
def test_a_fully_transparent_image_is_an_error(depth: int) -> None:
    samples = noise(depth, 4)
    samples[..., 3] = 0
    error = refusal(write_png(samples, depth, RGB_ALPHA))
    assert (error.status, error.code) == (400, "image_transparent")
    key = chunk(b"tRNS", struct.pack(">H", 7))
    assert refusal(write_png(np.full((20, 20, 1), 7, np.uint8), 8, GREY, key)).code == "image_transparent"


def test_an_animation_is_refused_and_one_frame_is_read() -> None:
    samples = noise(8, 3)
    one, two = (write_png(samples, 8, RGB, chunk(b"acTL", struct.pack(">II", count, 0))) for count in (1, 2))
    assert np.array_equal(decode(one), samples)
    error = refusal(two)
    assert error.code == "image_animated"
    assert "2 frames" in error.message


def test_text_that_calls_itself_something_else_changes_nothing() -> None:
    samples = noise(8, 3)
    names = (b"transparency", b"icc_profile", b"gamma", b"exif", b"interlace")
    texts = [chunk(b"tEXt", name + b"\0not what it seems") for name in names]
    assert np.array_equal(decode(write_png(samples, 8, RGB, *texts)), samples)


def test_a_missing_end_costs_nothing_if_the_pixels_are_there() -> None:
    samples = noise(8, 3)
    assert np.array_equal(decode(write_png(samples, 8, RGB)[:-12]), samples)
    assert refusal(write_png(samples, 8, RGB)[:-20]).code == "image_truncated"


@pytest.mark.parametrize(("colour_type", "depth"), [(GREY, 3), (RGB, 4), (PALETTE, 16), (5, 8), (GREY_ALPHA, 2)])
def test_a_depth_outside_the_table_is_damage(colour_type: int, depth: int) -> None:
    header = struct.pack(">IIBBBBB", 20, 20, depth, colour_type, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(20 * 200)))
    data = SIGNATURE + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")
    assert refusal(data).code == "image_corrupt"


def test_apples_variant_is_named() -> None:
    data = SIGNATURE + chunk(b"CgBI", bytes(4)) + write_png(noise(8, 3), 8, RGB)[8:]
    assert "CgBI" in refusal(data).message
