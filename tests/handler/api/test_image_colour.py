"""Colours of every encoding against littlecms, which imagecodecs runs in floating point."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageCms

from handler.api.image import ImageLimits, decode_image
from tests.conftest import Pixels
from tests.handler.api.test_image import Encode
from tests.support.icc_files import (
    ADOBE,
    P3,
    PROPHOTO,
    SRGB,
    SRGB_CURVE,
    gamma,
    grey_profile,
    parametric,
    profile,
    rgb_profile,
    table,
    tables_profile,
)
from tests.support.png_files import chunk, write_png
from tests.support.tiff_files import Layout, Samples, write_tiff

LIMITS = ImageLimits()
RELATIVE_COLORIMETRIC = 1
CARRIERS = ("PNG", "JPEG", "TIFF", "WEBP")
LEVELS = np.linspace(0, 1, 4096)
PROFILES = {
    "Adobe RGB": rgb_profile(ADOBE, gamma(2.2)),
    "Display P3": rgb_profile(P3, SRGB_CURVE),
    "ProPhoto": rgb_profile(PROPHOTO, gamma(1.8)),
    "linear": rgb_profile(SRGB, gamma(1)),
    "identity curve": rgb_profile(SRGB, b"curv" + bytes(8)),
    "scanner's table": rgb_profile(SRGB, table(LEVELS**1.6)),
    "short table": rgb_profile(ADOBE, table(np.linspace(0, 1, 5) ** 2)),
    "swapped": rgb_profile(SRGB[:, [2, 1, 0]], SRGB_CURVE),
    "power": rgb_profile(ADOBE, parametric(0, 1.9)),
    "CIE 122": rgb_profile(ADOBE, parametric(1, 2.2, 1.1, -0.1)),
    "IEC 61966-3": rgb_profile(ADOBE, parametric(2, 2.2, 0.95, 0.02, 0.01)),
    "full parametric": rgb_profile(ADOBE, parametric(4, 2.4, 0.94, 0.055, 1 / 12.92, 0.04045, 0.001, 0.002)),
}


def by_littlecms(samples: Samples, icc: bytes) -> NDArray[np.float64]:
    """RGB samples in sRGB's grey levels, not rounded."""
    values = (samples / np.iinfo(samples.dtype).max).astype(np.float32)
    converted = imagecodecs.cms_transform(
        values,
        icc,
        imagecodecs.cms_profile("srgb"),
        colorspace="rgb",
        outcolorspace="rgb",
        outdtype="f4",
        intent=RELATIVE_COLORIMETRIC,
    )
    return 255 * np.clip(converted, 0, 1).astype(np.float64)


def srgb(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """IEC 61966-2-1, in grey levels."""
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def colours(dtype: type = np.uint8) -> Samples:
    """Random colours, and all greys."""
    top = np.iinfo(dtype).max
    samples: Samples = np.random.default_rng(0).integers(0, top + 1, (64, 64, 3)).astype(dtype)
    samples[:4] = np.linspace(0, top, 256).round().astype(dtype).reshape(4, 64, 1)
    return samples


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_what_littlecms_makes_of_it(name: str, dtype: type) -> None:
    samples, icc = colours(dtype), PROFILES[name]
    bits = 8 * samples.itemsize
    expected = by_littlecms(samples, icc)
    png = write_png(samples, bits, 2, chunk(b"iCCP", b"x\0\0" + zlib.compress(icc)))
    tiff = write_tiff(samples, Layout(bits=bits, photometric=2, tags={34675: icc}))
    for data in (png, tiff):
        found = decode_image(data, LIMITS)
        assert np.abs(found.pixels - expected).max() < 0.8
        assert found.notes == ('The colours were converted from "a scanner" to sRGB.',)


def test_dark_16_bit_samples_of_a_linear_file_keep_their_steps() -> None:
    samples = np.arange(20 * 20, dtype=np.uint16).reshape(20, 20, 1).repeat(3, axis=2)
    found = decode_image(write_png(samples, 16, 2, chunk(b"gAMA", struct.pack(">I", 100_000))), LIMITS).pixels
    assert np.abs(found - srgb(samples / 65535)).max() <= 0.55


@pytest.mark.parametrize("carrier", CARRIERS)
def test_every_format_carries_its_profile(carrier: str, tiles: Pixels, encode: Encode) -> None:
    options = (
        {"lossless": True} if carrier == "WEBP" else {"quality": 95, "subsampling": 0} if carrier == "JPEG" else {}
    )
    plain = decode_image(encode(tiles[0], carrier, **options), LIMITS).pixels
    found = decode_image(encode(tiles[0], carrier, icc_profile=PROFILES["ProPhoto"], **options), LIMITS).pixels
    assert np.abs(found - by_littlecms(plain, PROFILES["ProPhoto"])).max() <= 2


def test_bmp_carries_a_profile(tiles: Pixels) -> None:
    icc = PROFILES["ProPhoto"]
    height, width, _ = tiles[0].shape
    pixels = tiles[0][::-1, :, ::-1].tobytes()
    header = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 24, 0, len(pixels), 0, 0, 0, 0)
    header += bytes(16) + b"DEBM" + bytes(36 + 12 + 4) + struct.pack("<III", 124 + len(pixels), len(icc), 0)
    data = b"BM" + struct.pack("<IHHI", 14 + 124 + len(pixels) + len(icc), 0, 0, 14 + 124) + header + pixels + icc
    found = decode_image(data, LIMITS)
    assert np.abs(found.pixels - by_littlecms(tiles[0], icc)).max() <= 2


def test_an_srgb_profile_changes_no_pixel_and_says_nothing(tiles: Pixels, encode: Encode) -> None:
    for icc in (rgb_profile(SRGB, SRGB_CURVE), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()):
        found = decode_image(encode(tiles[0], icc_profile=icc), LIMITS)
        assert np.array_equal(found.pixels, tiles[0])
        assert found.notes == ()


def test_one_picture_in_any_space_has_one_set_of_pixels(tiles: Pixels, encode: Encode) -> None:
    """Encode a tile in each space; decoding gives the tile back."""
    light = np.where(tiles[0] <= 0.04045 * 255, tiles[0] / 255 / 12.92, ((tiles[0] / 255 + 0.055) / 1.055) ** 2.4)
    for to_xyz, exponent in ((ADOBE, 563 / 256), (PROPHOTO, 461 / 256), (P3, 563 / 256)):
        other = np.clip(light @ SRGB.T @ np.linalg.inv(to_xyz).T, 0, 1) ** (1 / exponent)
        stored = np.rint(other * 255).astype(np.uint8)
        found = decode_image(encode(stored, icc_profile=rgb_profile(to_xyz, gamma(exponent))), LIMITS).pixels
        assert np.abs(found.astype(int) - tiles[0]).mean() < 0.5
        assert np.abs(found.astype(int) - tiles[0]).max() <= 3


def test_grey_profiles_are_applied(encode: Encode) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = decode_image(encode(grey, icc_profile=grey_profile(gamma(1.8))), LIMITS).pixels
    expected = srgb((grey / 255) ** (461 / 256))
    assert np.abs(found - expected[..., None]).max() <= 0.55
    by_rgb = decode_image(encode(grey, icc_profile=rgb_profile(SRGB, gamma(1.8))), LIMITS).pixels
    assert np.abs(by_rgb - expected[..., None]).max() <= 1


def linear_adobe(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values**2.2 @ ADOBE.T


def subtractive(inks: NDArray[np.float64]) -> NDArray[np.float64]:
    return ((1 - inks[:, :3]) * (1 - inks[:, 3:])) ** 2.2 @ SRGB.T


def test_a_profile_of_tables_is_applied(encode: Encode) -> None:
    by_tables = decode_image(encode(colours(), icc_profile=tables_profile(b"RGB ", 3, linear_adobe)), LIMITS)
    by_matrix = decode_image(encode(colours(), icc_profile=rgb_profile(ADOBE, gamma(2.2))), LIMITS)
    assert np.abs(by_tables.pixels.astype(int) - by_matrix.pixels).mean() < 2
    assert by_tables.notes


def test_cmyk_is_converted_by_its_profile() -> None:
    inks = np.random.default_rng(0).integers(0, 256, (32, 32, 4), np.uint8)
    icc = tables_profile(b"CMYK", 4, subtractive)
    found = decode_image(write_tiff(inks, Layout(photometric=5, tags={34675: icc})), LIMITS)
    values = (1 - inks[..., :3] / 255) * (1 - inks[..., 3:] / 255)
    assert np.abs(found.pixels - srgb(values**2.2)).mean() < 4
    assert found.notes


@pytest.mark.parametrize(
    ("icc", "reason"),
    [
        (b"no profile at all", "damaged"),
        (PROFILES["Adobe RGB"][:200], "damaged"),
        (PROFILES["Adobe RGB"].replace(b"curv", b"crvx"), "curves of an unknown type"),
        (rgb_profile(ADOBE, b"curv" + bytes(4) + b"\xff" * 4), "damaged"),
        (PROFILES["Adobe RGB"] + bytes(4 << 20), "larger than 4 MiB"),
        (grey_profile(gamma(1.8)), "another kind of image"),
        (tables_profile(b"CMYK", 4, subtractive), "another kind of image"),
        (profile(b"RGB ", {}, kind=b"link"), "another kind of image"),
        (profile(b"RGB ", {b"D2B0": bytes(64)}), "multi-process elements"),
        (profile(b"RGB ", {b"A2B0": b"mft2" + bytes(60)}), "damaged"),
    ],
)
def test_a_profile_that_cannot_be_used_is_said_and_changes_no_pixel(
    icc: bytes, reason: str, tiles: Pixels, encode: Encode
) -> None:
    found = decode_image(encode(tiles[0], "TIFF", icc_profile=icc), LIMITS)
    assert np.array_equal(found.pixels, tiles[0])
    (note,) = found.notes
    assert "not used" in note
    assert reason in note


def chromaticities(*xy: float) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in xy)))


GAMMA_OF_SRGB = chunk(b"gAMA", struct.pack(">I", 45455))
SRGB_XY = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
ADOBE_XY = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)


@pytest.mark.parametrize("exponent", [100_000, 55_556, 62_500, 30_000])
@pytest.mark.parametrize("depth", [8, 16])
def test_gamma_is_applied(exponent: int, depth: int) -> None:
    samples = colours(np.uint8 if depth == 8 else np.uint16)
    found = decode_image(write_png(samples, depth, 2, chunk(b"gAMA", struct.pack(">I", exponent))), LIMITS)
    expected = srgb((samples / np.iinfo(samples.dtype).max) ** (100_000 / exponent))
    assert np.abs(found.pixels - expected).max() <= 0.55


def test_chromaticities_are_applied() -> None:
    file = write_png(colours(), 8, 2, chunk(b"gAMA", struct.pack(">I", 45_470)), chromaticities(*ADOBE_XY))
    curve = rgb_profile(ADOBE, SRGB_CURVE)
    assert np.abs(decode_image(file, LIMITS).pixels - by_littlecms(colours(), curve)).max() <= 2


@pytest.mark.parametrize(
    "chunks",
    [
        [GAMMA_OF_SRGB],
        [GAMMA_OF_SRGB, chromaticities(*SRGB_XY)],
        [chunk(b"sRGB", b"\0"), chunk(b"gAMA", struct.pack(">I", 100_000))],
        [chunk(b"cICP", bytes((1, 13, 0, 1))), chunk(b"gAMA", struct.pack(">I", 100_000))],
        [chunk(b"iCCP", b"x\0\0" + zlib.compress(rgb_profile(SRGB, SRGB_CURVE))), chunk(b"gAMA", struct.pack(">I", 1))],
    ],
)
def test_chunks_that_say_srgb_change_no_pixel(chunks: list[bytes]) -> None:
    found = decode_image(write_png(colours(), 8, 2, *chunks), LIMITS)
    assert np.array_equal(found.pixels, colours())
    assert found.notes == ()


def test_code_points_are_applied() -> None:
    found = decode_image(write_png(colours(), 8, 2, chunk(b"cICP", bytes((12, 13, 0, 1)))), LIMITS).pixels
    assert np.abs(found - by_littlecms(colours(), rgb_profile(P3, SRGB_CURVE))).max() <= 2


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"gAMA", bytes(4))],
        [chunk(b"gAMA", b"\xff" * 4)],
        [chunk(b"cHRM", bytes(32))],
        [chunk(b"cHRM", b"\0")],
        [chromaticities(*SRGB_XY[:4], *SRGB_XY[2:4], *SRGB_XY[2:4])],
        [chunk(b"iCCP", b"x\0\0" + b"no deflate")],
    ],
)
def test_chunks_that_say_nothing_possible_are_said(chunks: list[bytes]) -> None:
    found = decode_image(write_png(colours(), 8, 2, *chunks), LIMITS)
    assert np.array_equal(found.pixels, colours())
    assert "not used" in found.notes[0]


def test_alpha_lies_on_the_converted_colours() -> None:
    samples = np.dstack((colours(), np.full((64, 64), 128, np.uint8)))
    icc = PROFILES["Adobe RGB"]
    found = decode_image(write_png(samples, 8, 6, chunk(b"iCCP", b"x\0\0" + zlib.compress(icc))), LIMITS).pixels
    expected = by_littlecms(colours(), icc) * (128 / 255) + 127
    assert np.abs(found - expected).max() <= 2
