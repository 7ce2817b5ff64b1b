"""Slides and regions of every format open with the right size and resolution, and show the right pixels."""

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from regions.errors import RegionError
from regions.openslide_reader import OpenSlideReader
from regions.source import Source, open_source
from tests.conftest import Pixels
from tests.support.slides import WRITERS, write_ome, write_png


@pytest.fixture(scope="module")
def picture() -> Pixels:
    """Noise over a gradient, of a size that is no multiple of anything."""
    noise = np.random.default_rng(5).integers(0, 60, (613, 779, 3))
    return (noise + np.linspace(0, 190, 779).astype(int)[None, :, None]).astype(np.uint8)


def pieces(source: Source) -> list[Pixels]:
    """Windows at the corners, in the middle, and all of level 0."""
    read = source.reader.read
    return [read(0, 0, 0, 90, 70), read(0, 640, 500, 139, 113), read(0, 100, 120, 300, 300), read(0, 0, 0, 779, 613)]


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_pixels_that_were_written(name: str, picture: Pixels, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name, picture, 0.5)
    source = open_source(tmp_path / name)
    assert (source.width, source.height) == (779, 613)
    assert source.mpp.x == pytest.approx(0.5, rel=1e-3)
    expected = [picture[:70, :90], picture[500:, 640:], picture[120:420, 100:400], picture]
    for piece, truth in zip(pieces(source), expected, strict=True):
        assert np.array_equal(piece, truth)


@pytest.mark.parametrize("name", ["pyramid.tif", "levels.ome.tiff"])
def test_levels_are_those_of_the_file(name: str, picture: Pixels, tmp_path: Path) -> None:
    even = picture[:512, :768]
    WRITERS[name](tmp_path / name, even, 0.5)
    source = open_source(tmp_path / name)
    half = np.asarray(Image.fromarray(even).reduce(2))
    assert len(source.reader.levels) == 3
    level = source.reader.levels[1]
    assert (level.width, level.height) == (half.shape[1], half.shape[0])
    assert np.array_equal(source.reader.read(1, 30, 40, 100, 90), half[40:130, 30:130])
    assert [source.level_for(mpp) for mpp in (0.1, 0.5, 0.99, 1.0, 2.0, 9.0)] == [0, 0, 0, 1, 2, 2]


def test_ome_tiff_is_read_in_planes_and_in_nanometres(picture: Pixels, tmp_path: Path) -> None:
    write_ome(tmp_path / "a.ome.tif", picture, 500.0, unit="nm", planar=True)
    source = open_source(tmp_path / "a.ome.tif")
    assert source.mpp.x == pytest.approx(0.5)
    assert np.array_equal(source.reader.read(0, 5, 7, 700, 600), picture[7:607, 5:705])


def test_16_bits_and_grey_become_8_bit_rgb(picture: Pixels, tmp_path: Path) -> None:
    deep = picture.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb", rowsperstrip=16)
    assert np.array_equal(open_source(tmp_path / "deep.tif", 1.0).reader.read(0, 0, 0, 779, 613), picture)
    tifffile.imwrite(tmp_path / "grey.tif", picture[..., 0], photometric="minisblack", rowsperstrip=16)
    grey = open_source(tmp_path / "grey.tif", 1.0).reader.read(0, 0, 0, 779, 613)
    assert np.array_equal(grey, np.stack([picture[..., 0]] * 3, axis=-1))


def test_a_file_that_does_not_state_its_resolution_needs_it(picture: Pixels, tmp_path: Path) -> None:
    Image.fromarray(picture).save(tmp_path / "plain.png")
    with pytest.raises(RegionError) as error:
        open_source(tmp_path / "plain.png")
    assert error.value.code == "mpp_missing"
    assert open_source(tmp_path / "plain.png", 0.5).mpp.x == 0.5
    write_png(tmp_path / "screen.png", picture, 25400 / 72)
    with pytest.raises(RegionError) as error:
        open_source(tmp_path / "screen.png")
    assert error.value.code == "mpp_implausible"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("text.png", b"no image", "format_unsupported"),
        ("empty.svs", b"", "image_missing"),
        ("cut.tif", b"II*\0\x08\0\0\0\xff\xff", "file_unreadable"),
        ("cut.png", b"\x89PNG\r\n\x1a\n\0\0", "image_truncated"),
    ],
)
def test_damaged_and_foreign_files_are_errors(name: str, content: bytes, code: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RegionError) as error:
        open_source(tmp_path / name, 0.5)
    assert error.value.code == code


def test_a_slide_cut_in_the_middle_is_an_error_when_it_is_read(picture: Pixels, tmp_path: Path) -> None:
    for name in ("levels.ome.tiff", "strips.tif"):
        WRITERS[name](tmp_path / name, picture, 0.5)
        data = bytearray((tmp_path / name).read_bytes())
        data[2000:20000] = bytes(18000)
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RegionError) as error:
            open_source(tmp_path / name).reader.read(0, 0, 0, 779, 613)
        assert error.value.code == "file_unreadable"


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RegionError) as error:
        open_source(tmp_path / "none.svs")
    assert error.value.code == "file_unreadable"


def test_a_stack_is_no_slide(picture: Pixels, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([picture] * 3), photometric="rgb", rowsperstrip=16)
    with pytest.raises(RegionError) as error:
        open_source(tmp_path / "stack.tif", 0.5)
    assert error.value.code == "format_unsupported"


def test_the_real_slide_has_its_size_and_resolution(shared: Path) -> None:
    path = shared / "slides" / "small_HE.svs"
    source = open_source(path)
    assert (source.width, source.height) == (2220, 2967)
    assert (source.mpp.x, source.mpp.y) == (0.499, 0.499)
    truth = np.asarray(openslide.OpenSlide(path).read_region((700, 900), 0, (500, 400)).convert("RGB"))
    assert np.array_equal(source.reader.read(0, 700, 900, 500, 400), truth)


class Scanned(openslide.ImageSlide):
    """A slide whose scanned area begins inside the file's plane, as MRXS and NDPI have it."""

    @property
    def properties(self) -> dict[str, str]:
        bounds = {"x": "100", "y": "50", "width": "300", "height": "200"}
        names = {f"openslide.bounds-{key}": value for key, value in bounds.items()}
        return {**names, "openslide.vendor": "mirax", "openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}


def test_coordinates_begin_at_the_scanned_area(picture: Pixels) -> None:
    plane = Image.fromarray(picture).convert("RGBA")
    plane.paste((255, 255, 255, 0), (100, 50, 130, 70))
    reader = OpenSlideReader(Scanned(plane))  # type: ignore[arg-type]
    assert (reader.bounds, reader.levels[0].width, reader.levels[0].height) == ((100, 50), 300, 200)
    piece = reader.read(0, 0, 0, 300, 200)
    # What was not scanned is white.
    assert (piece[:20, :30] == 255).all()
    assert np.array_equal(piece[20:], picture[70:250, 100:400])
