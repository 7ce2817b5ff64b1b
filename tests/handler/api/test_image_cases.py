"""The cases of public bug reports in ../shared/cases, whose README says what is right for each."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from handler.api.errors import RequestError
from handler.api.image import ImageLimits, decode_image
from handler.model.checkpoint import Model
from handler.model.engine import Engine
from serving.supervisor import ROOT

CASES = ROOT.parent / "shared" / "cases"
LIMITS = ImageLimits()
# Mean difference in grey levels: of files without loss, and of JPEG and subsampled colour.
EXACT, LOSSY = 0.5, 2.5

SPACES = ("adobe", "linear", "p3", "prophoto", "scanner_gamma18")
AS_RGB = (
    "gamma_linear.png", "rgb16_planar.tif", "rgb_with_thumbnail_page.tif", "bmp_v5_all_alpha_zero.bmp",
    "ok/apng_one.png", "ok/bmp32_topdown.bmp", "ok/bmp32_zero_alpha.bmp", "ok/cielab8.tif", "ok/cmyk.tif",
    "ok/icc_swapped.png", "ok/icc_swapped.tif", "ok/jpeg_lossless.jpg", "ok/rgb16.tif", "ok/rgb16_be.tif",
    "ok/rgb16_deflate_pred.tif", "ok/rgb16_planar_deflate.tif", "ok/rgb8_big.tif", "ok/rgb8_lzw.tif",
    "ok/rgb8_planar.tif", "ok/rgb8_planar_deflate_pred.tif", "ok/rgb8_tiled.tif", "ok/rgb8_zstd.tif",
    "ok/rgb_pyramid.tif", "ok/rgba16.png",
    *(f"icc_{name}.{kind}" for name in SPACES for kind in ("png", "tif")),
)  # fmt: skip
NEARLY_RGB = (
    "ycbcr_raw_21.tif", "ycbcr_raw_22.tif", "ok/ycbcr_raw_11.tif", "ok/cmyk_adobe.jpg", "ok/icc_swapped.jpg",
    "ok/palette_16bit_map.tif", "ok/progressive.jpg", "ok/rgb8_jpeg.tif", "ok/rgb_colorspace.jpg", "ok/subs_411.jpg",
    *(f"icc_{name}.jpg" for name in SPACES),
)  # fmt: skip
AS_JPEG = (
    "stale_mpf.jpg", "mpo_large_thumbnail.jpg", "no_eoi.jpg", "ok/exif_empty.jpg", "ok/exif_garbage.jpg",
    "ok/exif_orient_rational.jpg", "ok/exif_orient_two.jpg", "ok/exif_orient_zero_count.jpg", "ok/exif_truncated.jpg",
    "ok/trailing_garbage.jpg",
)  # fmt: skip
AS_GREY = ("grey12.tif", "grey12in16_maxsample.tif", "grey16_alpha.tif", "grey16_be.tif", "ok/grey8_whiteiszero.tif")
AS_HALF_WHITE = (
    "rgba8_planar_raw.tif", "rgba_half_clear.png", "ok/rgba_half_clear.tif", "ok/rgba_half_clear.webp",
    "rgb16_trns.png",
)  # fmt: skip
AS_NOT_SQUARE = ("ok/orient6.png", "ok/orient6.webp", "ok/orient6_None.tif", "ok/orient6_tiff_lzw.tif")
NEARLY_NOT_SQUARE = ("ok/orient6.jpg", "ok/orient6_jpeg.tif")
AS_GREY_ALPHA = ("la8_planar_raw.tif", "la8_planar_deflate.tif", "la8_assoc.tif")
TURNED = ("ok/exif_bad_rational_orient6.jpg", "ok/exif_double.jpg")
REFUSED = {
    "aperio_33003.tif": ("image_mode_unsupported", "JPEG 2000"),
    "aperio_33005.tif": ("image_mode_unsupported", "JPEG 2000"),
    "jpeg12.jpg": ("image_mode_unsupported", "12 bits"),
    "rgbf32_01.tif": ("image_mode_unsupported", "floating point"),
    "rgb_chw_3pages.tif": ("image_animated", "3 pages of one channel each"),
    "rgba_all_clear.png": ("image_transparent", "transparent"),
    "ok/jpegls.jls": ("image_mode_unsupported", "JPEG-LS"),
    "ok/tile.avif": ("image_unreadable", "AVIF"),
    "ok/tile.jp2": ("image_unreadable", "JPEG 2000"),
    "ok/tile.jxl": ("image_unreadable", "JPEG XL"),
}
SAME = (
    *((name, "ref_rgb.png", EXACT) for name in AS_RGB),
    *((name, "ref_rgb.png", LOSSY) for name in NEARLY_RGB),
    *((name, "ref.jpg", 0) for name in AS_JPEG),
    *((name, "ref_grey.png", 0) for name in AS_GREY),
    *((name, "ref_half_white.png", 0) for name in AS_HALF_WHITE),
    *((name, "ref_nonsq.png", 0) for name in AS_NOT_SQUARE),
    *((name, "ref_nonsq.png", LOSSY) for name in NEARLY_NOT_SQUARE),
    *((name, "ok/la8_contig.tif", EXACT) for name in AS_GREY_ALPHA),
)
PAIRS = ("iccflip_adobe_ADI", "iccflip_prophoto_ADI", "iccflip_prophoto_NORM", "iccflip_prophoto_STR")
# The transparent value of each file, and its depth.
KEYS = {"grey16_trns.png": 16, "grey4_trns.png": 4, "grey2_trns.png": 2, "grey2_trns1.png": 2}


@pytest.fixture(scope="module")
def cases() -> Path:
    if not CASES.is_dir():
        pytest.skip("../shared/cases is missing")
    return CASES


def decode(path: Path) -> NDArray[np.uint8]:
    return decode_image(path.read_bytes(), LIMITS).pixels


def mean_difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize(("name", "reference", "tolerance"), SAME, ids=[name for name, _, _ in SAME])
def test_a_case_has_the_pixels_of_its_reference(name: str, reference: str, tolerance: float, cases: Path) -> None:
    assert mean_difference(decode(cases / name), decode(cases / reference)) <= tolerance


@pytest.mark.parametrize("name", TURNED)
def test_a_case_that_is_turned_lies_on_its_side(name: str, cases: Path) -> None:
    assert np.array_equal(decode(cases / name), np.rot90(decode(cases / "ref.jpg"), -1))


@pytest.mark.parametrize("name", REFUSED)
def test_a_case_that_is_refused_is_named(name: str, cases: Path) -> None:
    code, said = REFUSED[name]
    with pytest.raises(RequestError) as caught:
        decode(cases / name)
    assert caught.value.code == code
    assert said in caught.value.message


@pytest.mark.parametrize("name", PAIRS)
def test_a_wide_profile_and_srgb_are_one_picture_and_one_class(name: str, cases: Path, model: Model) -> None:
    wide, narrow = decode(cases / f"{name}.png"), decode(cases / f"{name}_srgb.png")
    assert mean_difference(wide, narrow) < 0.5
    first, second = Engine(model, torch.device("cpu")).forward([wide, narrow]).logits.argmax(dim=1).tolist()
    assert first == second


@pytest.mark.parametrize("name", KEYS)
def test_a_transparent_grey_is_white_and_the_others_stay(name: str, cases: Path) -> None:
    data = (cases / name).read_bytes()
    key = int.from_bytes(data[(place := data.index(b"tRNS") + 4) : place + 2], "big")
    # Pillow reads the stored greys, at 2 and 4 bits stretched to 8.
    stored = np.array(Image.open(cases / name))
    depth = KEYS[name]
    scale = 255 // ((1 << depth) - 1) if depth < 8 else 1
    shown = (stored >> 8 if depth == 16 else stored).astype(np.uint8)
    expected = np.where(stored == key * scale, 255, shown)
    assert (stored == key * scale).any()
    assert np.array_equal(decode(cases / name), np.repeat(expected[..., None], 3, axis=2))


def test_a_colour_near_the_transparent_one_stays(cases: Path) -> None:
    name = "rgb16_trns_near.png"
    assert np.array_equal(decode(cases / name), np.array(Image.open(cases / name)))


def test_every_image_among_the_cases_is_tested(cases: Path) -> None:
    tested = {name for name, _, _ in SAME} | set(TURNED) | set(REFUSED) | set(KEYS) | {"rgb16_trns_near.png"}
    tested |= {f"{name}{end}.png" for name in PAIRS for end in ("", "_srgb")}
    references = {"ref_rgb.png", "ref_grey.png", "ref_half_white.png", "ref_nonsq.png", "ref.jpg", "ok/la8_contig.tif"}
    # The load test has this one: it is judged by its own aspect.
    others = {"nonsquare_tile_300x200.png"}
    files = {str(path.relative_to(cases)) for folder in (cases, cases / "ok") for path in folder.glob("*.*")}
    assert {name for name in files if not name.endswith((".json", ".bin", ".md"))} == tested | references | others
