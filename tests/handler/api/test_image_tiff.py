"""TIFF layouts, each written tag by tag and read by tifffile as well, so that two readers say what a file holds."""

import random
from collections.abc import Sequence
from io import BytesIO

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from handler.api.errors import RequestError
from handler.api.image import ImageLimits, decode_image
from tests.handler.api.test_image import Encode
from tests.support.tiff_files import CODECS, Layout, Samples, pack, write_pages, write_tiff

LIMITS = ImageLimits()
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4}
UNSTATED, ASSOCIATED, UNASSOCIATED = 0, 1, 2
FILES = 1200


def decode(data: bytes) -> NDArray[np.uint8]:
    return decode_image(data, LIMITS).pixels


def refusal(data: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode_image(data, LIMITS)
    return caught.value


def noise(bits: int, *shape: int, seed: int = 0) -> Samples:
    dtype = np.uint8 if bits <= 8 else np.uint16
    return np.random.default_rng(seed).integers(0, 1 << bits, shape).astype(dtype)


def any_layout(chance: random.Random) -> tuple[Layout, Samples]:
    """One of the layouts that have one meaning, and samples for it."""
    bits = chance.choice([1, 2, 4, 6, 8, 8, 10, 12, 14, 16, 16])
    photometric = chance.choice(list(COLOURS))
    colours = COLOURS[photometric]
    extra: tuple[int, ...] = chance.choice([(), (), (), (UNASSOCIATED,)])
    if photometric in (1, 2) and chance.random() < 0.2:
        extra = (ASSOCIATED,)
    if photometric in (2, 5) and chance.random() < 0.1:
        extra = (UNSTATED,)
    compression = chance.choice(list(CODECS))
    layout = Layout(
        bits=bits,
        photometric=photometric,
        extra=extra,
        planar=chance.random() < 0.4,
        compression=compression,
        predictor=compression != 1 and bits in (8, 16) and chance.random() < 0.5,
        reversed_bits=chance.random() < 0.2,
        order=chance.choice("<>"),
        big=chance.random() < 0.3,
        tile=chance.choice([None, None, (16, 32), (32, 16)]),
        rows=chance.choice([None, 1, 7, 16]),
        tags={320: noise(16, 3 << bits, seed=bits).tolist()} if photometric == 3 else {},
    )
    height, width = chance.choice([(20, 23), (37, 16), (40, 41)])
    samples = noise(bits, height, width, colours + len(extra), seed=chance.randrange(1 << 30))
    if ASSOCIATED in extra:
        samples[..., :colours] = samples[..., :colours].astype(int) * samples[..., -1:] // ((1 << bits) - 1)
    return layout, samples


def meaning(layout: Layout, samples: Samples) -> NDArray[np.float64]:
    """The picture on white, in grey levels, by the words of TIFF 6.0."""
    values = samples / ((1 << layout.bits) - 1)
    colours = values[..., : COLOURS[layout.photometric]]
    if layout.photometric == 3:
        colours = np.reshape(layout.tags[320], (3, -1)).T[samples[..., 0]] / 65535
    if layout.photometric == 5:
        colours = (1 - colours[..., :3]) * (1 - colours[..., 3:])
    if layout.photometric == 0:
        colours = 1 - colours
    if layout.extra and layout.extra[0] != UNSTATED:
        alpha = values[..., -1:]
        weight = 1.0 if ASSOCIATED in layout.extra else alpha
        colours = colours * weight + 1 - alpha
    return 255 * np.broadcast_to(colours, (*samples.shape[:2], 3))


def test_every_layout_means_what_the_specification_says_and_tifffile_reads() -> None:
    chance = random.Random(0)
    for number in range(FILES):
        layout, samples = any_layout(chance)
        data = write_tiff(samples, layout)
        read = tifffile.imread(BytesIO(data))
        if layout.planar and samples.shape[2] > 1:
            read = np.moveaxis(read, 0, -1)
        assert np.array_equal(read.reshape(samples.shape), samples), layout
        difference = np.abs(decode(data) - meaning(layout, samples)).max()
        # Premultiplied colours are rounded in the file, by half a level of its own depth.
        assert difference < (255 / ((1 << layout.bits) - 1) if ASSOCIATED in layout.extra else 0) + 2.5, (
            number,
            layout,
        )


@pytest.mark.parametrize("compression", ["lzw", "deflate", "zstd", "lzma"])
@pytest.mark.parametrize("predictor", [False, True])
def test_what_tifffile_writes_is_read(compression: str, predictor: bool) -> None:
    pixels = noise(8, 61, 47, 3)
    file = BytesIO()
    tifffile.imwrite(file, pixels, photometric="rgb", compression=compression, predictor=predictor, rowsperstrip=9)
    assert np.array_equal(decode(file.getvalue()), pixels)


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("tile", [None, (32, 48)])
def test_jpeg_strips_and_tiles_are_what_tifffile_reads(
    subsampling: tuple[int, int], tile: tuple[int, int] | None
) -> None:
    smooth = np.add.outer(np.arange(90), np.arange(70))[..., None] * np.array([1, 0.5, 1.3])
    file = BytesIO()
    options = {"level": 90}
    tifffile.imwrite(
        file,
        smooth.astype(np.uint8),
        photometric="ycbcr",
        compression="jpeg",
        compressionargs=options,
        subsampling=subsampling,
        tile=tile,
        rowsperstrip=None if tile else 32,
    )
    expected = tifffile.imread(BytesIO(file.getvalue()))
    assert np.abs(decode(file.getvalue()) - expected.astype(int)).max() <= 2


@pytest.mark.parametrize("planar", [False, True])
def test_jpeg_of_rgb_without_conversion_is_read(planar: bool) -> None:
    pixels = np.full((32, 32, 3), (200, 30, 90), np.uint8)
    if planar:
        segments = [imagecodecs.jpeg_encode(np.ascontiguousarray(pixels[..., index])) for index in range(3)]
    else:
        segments = [imagecodecs.jpeg_encode(pixels, colorspace="rgb", outcolorspace="rgb")]
    tags = page_tags(32, 32, bits=[8, 8, 8], photometric=2, compression=7) | {284: [2 if planar else 1]}
    assert np.abs(decode(write_pages([(tags, segments)])) - pixels.astype(int)).max() <= 3


@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4"])
def test_fax_compressions_are_read(compression: str, encode: Encode) -> None:
    white = np.ones((24, 40), bool)
    white[4:20, 10:30] = False
    data = encode(Image.fromarray(white), "TIFF", compression=compression)
    assert np.array_equal(decode(data)[..., 0], np.where(white, 255, 0))


def page_tags(
    width: int, height: int, bits: Sequence[int] = (8,), photometric: int = 1, compression: int = 1
) -> dict[int, Sequence[int] | bytes]:
    return {
        256: [width],
        257: [height],
        258: bits,
        259: [compression],
        262: [photometric],
        277: [len(bits)],
        278: [height],
    }


def ycbcr_cells(rgb: Samples, horizontal: int, vertical: int) -> bytes:
    """Blocks of luma with the mean colour differences of each block (TIFF 6.0, section 21)."""
    red, green, blue = (rgb[..., index].astype(float) for index in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    differences = ((blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128)
    lines, columns = luma.shape[0] // vertical, luma.shape[1] // horizontal

    def blocks(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values.reshape(lines, vertical, columns, horizontal).swapaxes(1, 2).reshape(lines, columns, -1)

    cells = [blocks(luma), *(blocks(values).mean(axis=2, keepdims=True) for values in differences)]
    return np.rint(np.concatenate(cells, axis=2)).clip(0, 255).astype(np.uint8).tobytes()


@pytest.mark.parametrize(("horizontal", "vertical"), [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 2), (4, 4)])
@pytest.mark.parametrize("compression", [1, 5])
def test_subsampled_ycbcr_is_read(horizontal: int, vertical: int, compression: int) -> None:
    # One colour for each block, so that subsampling loses nothing.
    rgb = noise(8, 32 // vertical, 32 // horizontal, 3).repeat(vertical, axis=0).repeat(horizontal, axis=1)
    cells = CODECS[compression](ycbcr_cells(rgb, horizontal, vertical))
    tags = page_tags(32, 32, (8, 8, 8), 6, compression) | {530: [horizontal, vertical]}
    assert np.abs(decode(write_pages([(tags, [cells])])) - rgb.astype(int)).max() <= 2


def test_ycbcr_without_a_subsampling_tag_is_subsampled_by_two() -> None:
    rgb = noise(8, 16, 16, 3).repeat(2, axis=0).repeat(2, axis=1)
    file = write_pages([(page_tags(32, 32, (8, 8, 8), 6), [ycbcr_cells(rgb, 2, 2)])])
    assert np.abs(decode(file) - rgb.astype(int)).max() <= 2


def test_cie_lab_is_read_at_both_depths() -> None:
    # White, middle grey, and sRGB red under D50.
    lab = np.array([[100, 0, 0], [53.39, 0, 0], [54.29, 80.81, 69.89]])
    expected = [[255, 255, 255], [127, 127, 127], [255, 0, 0]]
    for bits in (8, 16):
        scale = np.array([((1 << bits) - 1) / 100, 1 << bits - 8, 1 << bits - 8])
        codes = np.rint(lab * scale).astype(int) % (1 << bits)
        samples = np.tile(codes.astype(f"u{bits // 8}").reshape(1, 3, 3).repeat(6, axis=1), (16, 1, 1))
        found = decode(write_tiff(samples, Layout(bits=bits, photometric=8)))
        assert np.abs(found[0, ::6] - np.array(expected)).max() <= 3


def test_a_palette_of_8_bit_colours_is_not_black() -> None:
    colours = noise(8, 3 * 256)
    indices = noise(8, 20, 20, 1, seed=1)
    found = decode(write_tiff(indices, Layout(photometric=3, tags={320: colours.tolist()})))
    assert np.array_equal(found, colours.reshape(3, 256).T[indices[..., 0]])


@pytest.mark.parametrize("tag", [281, 341])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_16_are_read_by_their_largest_value(tag: int, bits: int) -> None:
    samples = noise(bits, 20, 20, 1)
    found = decode(write_tiff(samples, Layout(bits=16, tags={tag: [(1 << bits) - 1]})))
    assert np.array_equal(found[..., 0], samples[..., 0] >> (bits - 8))


def test_the_brightest_sample_as_a_statistic_changes_nothing() -> None:
    samples = noise(16, 20, 20, 1)
    samples[samples > 60_001] = 60_001
    found = decode(write_tiff(samples, Layout(bits=16, tags={281: [60_001]})))
    assert np.array_equal(found[..., 0], samples[..., 0] >> 8)


def test_an_alpha_plane_is_laid_on_white() -> None:
    samples = noise(8, 20, 20, 4)
    samples[:10, :, 3], samples[10:, :, 3] = 255, 0
    for planar in (False, True):
        found = decode(write_tiff(samples, Layout(photometric=2, extra=(UNASSOCIATED,), planar=planar)))
        assert np.array_equal(found[:10], samples[:10, :, :3])
        assert (found[10:] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied(orientation: int) -> None:
    upright = noise(8, 18, 25, 3)
    # What is stored, so that its orientation turns it upright (TIFF 6.0, tag 274).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    file = write_tiff(np.ascontiguousarray(stored), Layout(photometric=2, tags={274: [orientation]}))
    assert np.array_equal(decode(file), upright)


def pages(*sizes: int, photometric: int = 1, later: dict[int, Sequence[int] | bytes] | None = None) -> bytes:
    """Square grey or RGB pages of the given sides, the later ones with the given tags."""
    channels = 3 if photometric == 2 else 1
    return write_pages(
        [
            (
                page_tags(side, side, (8,) * channels, photometric) | (later or {} if index else {}),
                [bytes(side * side * channels)],
            )
            for index, side in enumerate(sizes)
        ]
    )


@pytest.mark.parametrize(("tag", "kind"), [(254, 1), (254, 4), (254, 9), (255, 2)])
def test_reduced_pages_and_masks_are_passed_over(tag: int, kind: int) -> None:
    assert decode(pages(40, 20, 10, later={tag: [kind]})).shape == (40, 40, 3)


def test_a_thumbnail_before_the_picture_is_passed_over() -> None:
    small, large = page_tags(16, 16) | {254: [1]}, page_tags(32, 32)
    assert decode(write_pages([(small, [bytes(256)]), (large, [bytes(1024)])])).shape == (32, 32, 3)


def test_channels_as_pages_are_refused_as_such() -> None:
    error = refusal(pages(20, 20, 20))
    assert error.code == "image_animated"
    assert "3 pages of one channel each" in error.message
    assert "2 pages." in refusal(pages(20, 20, photometric=2)).message


def test_a_stack_of_imagej_behind_one_page_is_refused() -> None:
    file = BytesIO()
    tifffile.imwrite(file, np.zeros((3, 20, 20), np.uint8), imagej=True, truncate=True)
    error = refusal(file.getvalue())
    assert error.code == "image_animated"
    assert "3 pages of one channel each" in error.message


UNSUPPORTED: dict[str, tuple[Layout, Samples, str]] = {
    "float": (Layout(bits=16, tags={339: [3]}), noise(16, 20, 20, 1), "floating point"),
    "signed": (Layout(tags={339: [2]}), noise(8, 20, 20, 1), "signed integer"),
    "complex": (Layout(tags={339: [6]}), noise(8, 20, 20, 1), "complex"),
    "24 bits": (Layout(bits=16, tags={258: [24]}), noise(16, 20, 20, 1), "24 bits"),
    "32 bits": (Layout(bits=16, tags={258: [32]}), noise(16, 20, 20, 1), "32 bits"),
    "5, 6, 5 bits": (Layout(photometric=2, tags={258: [5, 6, 5]}), noise(8, 20, 20, 3), "5, 6, 5 bits"),
    "no photometric": (Layout(photometric=999), noise(8, 20, 20, 1), "999"),
    "mask": (Layout(photometric=4), noise(8, 20, 20, 1), "transparency mask"),
    "filter array": (Layout(photometric=32803), noise(8, 20, 20, 1), "colour filter array"),
    "logluv": (Layout(photometric=32845), noise(8, 20, 20, 3), "LogLuv"),
    "inks": (Layout(photometric=5, tags={332: [2]}), noise(8, 20, 20, 4), "inks"),
    "dot range": (Layout(photometric=5, tags={336: [16, 240]}), noise(8, 20, 20, 4), "16, 240"),
    "unnamed channel": (Layout(photometric=2), noise(8, 20, 20, 4), "ExtraSamples"),
    "grey with others": (Layout(extra=(UNSTATED, UNSTATED)), noise(8, 20, 20, 3), "ExtraSamples"),
    "two alphas": (Layout(photometric=2, extra=(1, 2)), noise(8, 20, 20, 5), "several alpha"),
    "many channels": (Layout(extra=(UNSTATED,) * 6), noise(8, 20, 20, 7), "7 channels"),
    "odd maximum": (Layout(bits=16, tags={281: [3000]}), noise(12, 20, 20, 1), "MaxSampleValue of 3000"),
    "above maximum": (Layout(bits=16, tags={281: [4095]}), noise(16, 20, 20, 1), "above its MaxSampleValue"),
    "inverted premultiplied": (Layout(photometric=0, extra=(1,)), noise(8, 20, 20, 2), "premultiplied"),
    "float predictor": (Layout(compression=8, tags={317: [3]}), noise(8, 20, 20, 1), "floating point predictor"),
    "predictor of 12 bits": (Layout(bits=12, compression=8, tags={317: [2]}), noise(12, 20, 20, 1), "predictor"),
    "JPEG of 12 bits": (Layout(bits=12, tags={259: [7]}), noise(12, 20, 20, 1), "12 bits"),
    **{
        name: (Layout(tags={259: [code]}), noise(8, 20, 20, 1), name)
        for code, name in ((6, "old-style JPEG"), (33003, "JPEG 2000"), (33005, "JPEG 2000"), (34712, "JPEG 2000"),
                           (34887, "LERC"), (50001, "WebP"), (50002, "JPEG XL"), (32809, "ThunderScan"), (7777, "7777"))
    },
}  # fmt: skip


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_layout_without_one_meaning_is_refused_by_its_name(name: str) -> None:
    layout, samples, said = UNSUPPORTED[name]
    error = refusal(write_tiff(samples, layout))
    assert (error.status, error.code) == (415, "image_mode_unsupported")
    assert said in error.message


@pytest.mark.parametrize("compression", [1, 5, 8])
def test_a_cut_file_is_cut_and_a_damaged_one_damaged(compression: int) -> None:
    data = write_tiff(noise(8, 40, 40, 3), Layout(photometric=2, compression=compression, rows=8))
    # The directory lies behind the pixels, so a copy with the pixels last shows what is missing.
    tags = page_tags(40, 40, (8, 8, 8), 2)
    pixels = noise(8, 40, 40, 3).tobytes()
    assert refusal(write_pages([(tags | {279: [4800]}, [pixels])])[:2000]).code == "image_truncated"
    assert refusal(data[: len(data) // 2]).code == "image_truncated"
    if compression != 1:
        assert refusal(data[:8] + bytes(2000) + data[2008:]).code == "image_corrupt"


def test_packed_rows_are_what_imagecodecs_packs() -> None:
    for bits in (1, 2, 4, 10, 12, 14):
        samples = noise(bits, 9, 13)
        rows = b"".join(pack(row[None], bits) for row in samples)
        runs = np.concatenate(
            [imagecodecs.packints_decode(pack(row[None], bits), samples.dtype, bits, runlen=13) for row in samples]
        )
        assert np.array_equal(runs.reshape(samples.shape), samples), (bits, rows)
