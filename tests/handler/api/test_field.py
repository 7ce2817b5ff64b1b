"""The field of view: who says how large a pixel is, what is cut, and what is refused."""

import struct
from collections.abc import Mapping
from fractions import Fraction
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from handler.api.errors import RequestError
from handler.api.field import PLAUSIBLE, TILE_MICRONS, Box, view
from handler.api.formats.picture import Scale
from handler.api.image import ImageLimits, decode_image
from handler.api.request import RawRequest, parse_request
from handler.api.service import Service
from tests.conftest import Pixels
from tests.support.answers import answer
from tests.support.images import Encode
from tests.support.png_files import chunk, write_png

LIMITS = ImageLimits()


def picture(width: int, height: int | None = None) -> Pixels:
    """No two rows or columns are alike, so a cut shows where it was made."""
    rows, columns = np.indices((height or width, width))
    return np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)


def tiff(width: int = 32, **options: Any) -> bytes:
    buffer = BytesIO()
    tifffile.imwrite(buffer, picture(width), photometric="rgb", **options)
    return buffer.getvalue()


def png(physical: tuple[int, int, int]) -> bytes:
    return write_png(picture(32), 8, 2, chunk(b"pHYs", struct.pack(">IIB", *physical)))


def scale(data: bytes) -> Scale | None:
    return decode_image(data, LIMITS).scale


def ome(**sizes: object) -> dict[str, Any]:
    return {"ome": True, "metadata": {"axes": "YXS", **sizes}}


def units(name: str) -> dict[str, str]:
    return {"PhysicalSizeXUnit": name, "PhysicalSizeYUnit": name}


def assert_same(found: Scale | None, expected: Scale | None) -> None:
    assert (found is None) is (expected is None)
    if found and expected:
        assert found.mpp == pytest.approx(expected.mpp, rel=1e-4)
        assert found.source == expected.source


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (tiff(resolution=(20000, 20000), resolutionunit="CENTIMETER"), Scale(0.5, "tiff")),
        (tiff(resolution=(50800, 50800), resolutionunit="INCH"), Scale(0.5, "tiff")),
        (tiff(resolution=(72, 72), resolutionunit="INCH"), Scale(25400 / 72, "tiff")),
        (tiff(resolution=(2, 2), resolutionunit="NONE"), None),
        (tiff(resolution=(20000, 10000), resolutionunit="CENTIMETER"), None),
        (tiff(), None),
        (tiff(imagej=True, resolution=(4, 4), metadata={"unit": "um"}), Scale(0.25, "tiff")),
        (tiff(imagej=True, resolution=(4, 4), metadata={"unit": "pixel"}), None),
        (tiff(**ome(PhysicalSizeX=0.499, PhysicalSizeY=0.499)), Scale(0.499, "ome")),
        (
            tiff(**ome(PhysicalSizeX=499, PhysicalSizeXUnit="nm", PhysicalSizeY=499, PhysicalSizeYUnit="nm")),
            Scale(0.499, "ome"),
        ),
        (tiff(**ome(PhysicalSizeX=1, PhysicalSizeXUnit="pixel", PhysicalSizeY=1, PhysicalSizeYUnit="pixel")), None),
        (tiff(**ome(PhysicalSizeX=0.5, PhysicalSizeY=1)), None),
        (tiff(description="Aperio |AppMag = 20", metadata=None), None),
        (png((2_000_000, 2_000_000, 1)), Scale(0.5, "png")),
        (png((2835, 2835, 1)), Scale(1e6 / 2835, "png")),
        (png((2, 2, 0)), None),
        (png((0, 0, 1)), None),
    ],
)
def test_what_a_file_states_is_read_as_tifffile_or_the_specification_writes_it(
    data: bytes, expected: Scale | None
) -> None:
    assert_same(scale(data), expected)


def test_pillows_resolution_is_read(encode: Encode) -> None:
    assert_same(scale(encode(picture(32), "TIFF", dpi=(50800, 50800))), Scale(0.5, "tiff"))
    assert_same(scale(encode(picture(32), "PNG", dpi=(50800, 50800))), Scale(0.5, "png"))


@pytest.mark.parametrize("cut", range(8, 200, 7))
def test_damaged_tags_of_scale_leave_the_picture_readable(cut: int) -> None:
    data = bytearray(tiff(resolution=(Fraction(20000, 1), Fraction(20000, 1)), resolutionunit="CENTIMETER"))
    with tifffile.TiffFile(BytesIO(data)) as file:
        tag = file.pages.first.tags["XResolution"]
    # The tag's pointer leads outside the file.
    data[tag.offset + 8 : tag.offset + 12] = (len(data) + cut).to_bytes(4, "little")
    assert scale(bytes(data)) is None
    assert (decode_image(bytes(data), LIMITS).pixels == picture(32)).all()


@pytest.mark.parametrize(
    ("size", "mpp", "side"),
    [
        # A tile in each of its resolutions, and up to 15 % more or less, is taken whole.
        ((224, 224), 0.5, 224),
        ((28, 28), 4.0, 28),
        ((16, 16), 7.0, 16),
        ((448, 448), 0.25, 448),
        ((256, 256), 0.5, 256),
        ((191, 191), 0.5, 191),
        # A larger field is cut to 112 micrometres; a side that is longer than the other to the shorter one.
        ((300, 300), 0.5, 224),
        ((448, 448), 0.5, 224),
        ((448, 230), 0.5, 230),
        ((200, 224), 0.5, 200),
        ((56, 56), 4.0, 28),
    ],
)
def test_the_centre_square_of_a_tiles_size_is_classified(size: tuple[int, int], mpp: float, side: int) -> None:
    image = picture(*size)
    pixels, field = view(image, mpp, None)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    assert (pixels == image[top : top + side, left : left + side]).all()
    assert pixels.shape[:2] == (side, side)
    assert field.microns == pytest.approx(side * mpp)
    assert field.cut == (None if size == (side, side) else Box(left, top, side, side))
    assert bool(field.notes) is (field.cut is not None)


@pytest.mark.parametrize(
    ("size", "mpp", "code"),
    [
        ((190, 190), 0.5, "field_too_small"),
        ((112, 112), 0.5, "field_too_small"),
        ((224, 100), 0.5, "field_too_small"),
        ((28, 28), 0.5, "field_too_small"),
        ((449, 449), 0.5, "field_too_large"),
        ((224, 449), 0.5, "field_too_large"),
        ((2000, 2000), 0.25, "field_too_large"),
    ],
)
def test_too_little_tissue_and_regions_are_refused(size: tuple[int, int], mpp: float, code: str) -> None:
    for requested, stated in ((mpp, None), (None, Scale(mpp, "ome"))):
        with pytest.raises(RequestError) as caught:
            view(picture(*size), requested, stated)
        assert caught.value.code == code
        assert f"{size[0] * mpp:.4g} x {size[1] * mpp:.4g} micrometres" in caught.value.message
        assert ("/regions/pathmnist" in caught.value.message) is (code == "field_too_large")
        # Who was refused for the file's word learns how to contradict it.
        assert ("'mpp' overrides" in caught.value.message) is (requested is None)


@pytest.mark.parametrize("mpp", [25400 / 72, 25400 / 96, 25400 / 300, 1e6 / 3780, 0.001, 1e9])
def test_the_resolution_of_screens_and_printers_is_never_believed(mpp: float) -> None:
    image = picture(224)
    pixels, field = view(image, None, Scale(mpp, "png"))
    assert pixels is image
    assert (field.mpp, field.source, field.microns) == (None, None, None)
    found = field.to_json()
    assert found["assumed"] == TILE_MICRONS
    assert found["ignored"] == {"mpp": mpp, "source": "png"}
    assert found["plausible_mpp"] == list(PLAUSIBLE)


def test_the_request_goes_before_the_file_and_says_if_they_contradict_each_other() -> None:
    _, agreeing = view(picture(224), 0.5, Scale(0.4999, "tiff"))
    assert (agreeing.source, agreeing.ignored, agreeing.notes) == ("request", None, ())
    _, field = view(picture(224), 0.5, Scale(0.25, "tiff"))
    assert (field.mpp, field.source, field.ignored) == (0.5, "request", Scale(0.25, "tiff"))
    (note,) = field.notes
    assert "0.5" in note
    assert "0.25 (tiff)" in note
    _, field = view(picture(224), 0.5, Scale(352.8, "tiff"))
    assert field.notes == ()


def test_an_unknown_field_is_assumed_and_squeezing_is_said(service: Service, encode: Encode) -> None:
    square = answer(service, {"body": encode(picture(64))})
    assert (square["field"]["microns"], square["field"]["assumed"]) == (None, 112)
    assert "notes" not in square
    squeezed = answer(service, {"body": encode(picture(64, 48))})
    (note,) = squeezed["notes"]
    assert "64 x 48" in note
    assert "mpp" in note


@pytest.mark.parametrize("fields", [{"mpp": "0.5"}, {"mpp": b"0.5"}, {"mpp": 0.5}])
def test_the_cut_is_classified_and_explained_like_the_part_itself(
    fields: Mapping[str, Any], service: Service, tiles: Pixels, encode: Encode
) -> None:
    tile = np.asarray(Image.fromarray(tiles[0]).resize((224, 224)))
    framed = np.full((300, 340, 3), 255, np.uint8)
    framed[38:262, 58:282] = tile
    part = answer(service, {"body": encode(tile), "explain": "gradcam", **fields})
    whole = answer(service, {"body": encode(framed), "explain": "gradcam", **fields})
    assert whole["field"]["cut"] == {"left": 58, "top": 38, "width": 224, "height": 224}
    assert part["field"]["cut"] is None
    for name in ("prediction", "logits", "fit", "explanations"):
        assert whole[name] == part[name]


@pytest.mark.parametrize("mpp", ["40", "20", "0", "-0.5", "0.05", "nan", "inf", "half", ""])
def test_an_objectives_power_and_nonsense_are_no_micrometres(mpp: str, encode: Encode) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request(RawRequest({"body": encode(picture(64)), "mpp": mpp}), LIMITS)
    assert (caught.value.code, caught.value.field) == ("parameter_invalid", "mpp")


def test_the_scale_of_a_file_is_used_and_named(service: Service) -> None:
    body = answer(service, {"body": tiff(448, resolution=(20000, 20000), resolutionunit="CENTIMETER")})
    assert (body["field"]["microns"], body["field"]["mpp"], body["field"]["source"]) == (112, 0.5, "tiff")
    assert body["field"]["cut"] == {"left": 112, "top": 112, "width": 224, "height": 224}
