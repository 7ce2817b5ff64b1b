from io import BytesIO
from typing import Any

import numpy as np
import pytest
from cmap import Colormap
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from handler.api.render import (
    AGAINST,
    DIVERGING,
    EVIDENCE,
    FOR,
    FULL_NAMES,
    SEQUENTIAL,
    Canvas,
    Picture,
    Rendering,
    jpeg,
    png,
    strength_of,
)
from handler.explain.display import Display
from tests.conftest import Pixels


def paint(strength: NDArray[np.float64], image: Pixels, display: Display = "positive", **choices: Any) -> Picture:
    return Canvas(image, input_size=224).draw(strength.astype(np.float32), display, Rendering(**choices))


def pixels_of(image: Image.Image) -> NDArray[np.int64]:
    return np.asarray(image.convert("RGB")).astype(int)


def colours(name: str) -> Pixels:
    return np.rint(Colormap(FULL_NAMES.get(name, name)).lut(256)[:, :3] * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((28, 28), (224, 224)), ((100, 200), (224, 112)), ((600, 300), (112, 224)), ((16, 9000), (224, 1))],
)
def test_pictures_have_the_images_aspect(shape: tuple[int, int], size: tuple[int, int]) -> None:
    picture = paint(np.eye(7), np.zeros((*shape, 3), dtype=np.uint8))
    assert picture.heatmap.size == picture.overlay.size == size


def test_the_longer_side_can_be_chosen(tiles: Pixels) -> None:
    assert paint(np.eye(7), tiles[0], size=500).overlay.size == (500, 500)


@pytest.mark.parametrize("name", [*SEQUENTIAL, *DIVERGING])
def test_the_extremes_have_the_colour_maps_ends(name: str, tiles: Pixels) -> None:
    strength = np.zeros((224, 224))
    strength[100, 50] = 3
    picture = paint(strength, tiles[0], colormap=name)
    pixels = pixels_of(picture.heatmap)
    assert (pixels[0, 0] == colours(name)[0]).all()
    assert (pixels[100, 50] == colours(name)[-1]).all()
    assert (picture.low, picture.high, picture.colormap) == (0, 3, name)


def test_a_signed_map_has_zero_in_the_middle(tiles: Pixels) -> None:
    strength = np.zeros((224, 224))
    strength[0, 0], strength[-1, -1] = -4, 1
    picture = paint(strength, tiles[0], "signed")
    pixels = pixels_of(picture.heatmap)
    assert (picture.low, picture.high, picture.colormap) == (-4, 4, "vik")
    assert (pixels[0, 0] == colours("vik")[0]).all()
    assert np.abs(pixels[100, 100] - colours("vik")[128]).max() <= 6


@pytest.mark.parametrize(("display", "index"), [("positive", 0), ("signed", 128)])
def test_a_constant_map_has_one_colour(display: Display, index: int, tiles: Pixels) -> None:
    pixels = pixels_of(paint(np.full((7, 7), 0.0), tiles[0], display).heatmap)
    assert (pixels == colours("vik" if display == "signed" else "inferno")[index]).all()


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_the_overlay_mixes_image_and_map_by_alpha(alpha: float) -> None:
    picture = paint(np.zeros((7, 7)), np.full((224, 224, 3), 200, dtype=np.uint8), alpha=alpha)
    expected = pixels_of(picture.heatmap) * alpha + 200 * (1 - alpha)
    assert np.abs(pixels_of(picture.overlay) - expected).max() <= 1


def test_the_files_hold_the_pictures(tiles: Pixels) -> None:
    picture = paint(np.random.default_rng(0).random((7, 7)), tiles[0])
    heatmap, overlay = (Image.open(BytesIO(file)) for file in (png(picture.heatmap), jpeg(picture.overlay)))
    assert (heatmap.format, overlay.format) == ("PNG", "JPEG")
    assert np.array_equal(pixels_of(heatmap), pixels_of(picture.heatmap))
    assert np.abs(pixels_of(overlay) - pixels_of(picture.overlay)).mean() < 3


def test_a_canvas_draws_every_map_as_if_it_were_the_first(tiles: Pixels) -> None:
    canvas = Canvas(tiles[0], input_size=224)
    maps = [np.eye(7), np.ones((7, 7))]
    for size in (224, 100):
        for values in maps:
            overlay = canvas.draw(values.astype(np.float32), "positive", Rendering(size=size)).overlay
            assert np.array_equal(pixels_of(overlay), pixels_of(paint(values, tiles[0], size=size).overlay))


def test_smoothing_is_scipys_at_the_networks_input(tiles: Pixels) -> None:
    strength = np.zeros((224, 224))
    strength[112, 112] = 1
    smooth = gaussian_filter(strength.astype(np.float32), 2.0)
    picture = paint(strength, tiles[0], sigma=2.0)
    assert picture.high == pytest.approx(float(smooth.max()))
    assert picture.high < 0.05


def test_a_map_becomes_one_number_per_pixel() -> None:
    values = np.array([[[1.0]], [[-3.0]], [[0.5]]], dtype=np.float32)
    assert strength_of(values, "magnitude").tolist() == [[4.5]]
    assert strength_of(values, "signed").tolist() == [[-1.5]]
    assert strength_of(values, "positive").tolist() == [[0]]


def test_values_beyond_the_percentile_have_the_last_colour(tiles: Pixels) -> None:
    strength = np.linspace(0, 1, 224 * 224).reshape(224, 224)
    strength[0, 0] = 100
    picture = paint(strength, tiles[0], percentile=99.5)
    assert picture.high == pytest.approx(np.percentile(strength.astype(np.float32), 99.5))
    pixels = pixels_of(picture.heatmap)
    for row, column in ((0, 0), (-1, -1)):
        assert (pixels[row, column] == colours("inferno")[-1]).all()
    assert (pixels[112, 0] != colours("inferno")[0]).any()


def test_the_percentile_of_a_signed_map_is_of_the_magnitude(tiles: Pixels) -> None:
    strength = np.random.default_rng(0).normal(size=(224, 224))
    picture = paint(strength, tiles[0], "signed", percentile=99)
    assert picture.high == -picture.low == pytest.approx(np.percentile(np.abs(strength.astype(np.float32)), 99))


def test_evidence_has_one_hue_whose_opacity_is_the_strength(tiles: Pixels) -> None:
    strength = np.linspace(0.5, 1, 224 * 224).reshape(224, 224)
    picture = paint(strength, tiles[0], colormap=EVIDENCE)
    pixels = np.asarray(Image.open(BytesIO(png(picture.heatmap))).convert("RGBA")).astype(int)
    assert (pixels[..., :3] == FOR).all()
    # From zero, not from the smallest value: half of the evidence is half as opaque.
    assert np.abs(pixels[..., 3] - 255 * strength).max() <= 1
    assert (picture.low, picture.high) == (0, 1)


def test_evidence_against_has_another_hue_and_no_evidence_is_transparent(tiles: Pixels) -> None:
    strength = np.zeros((224, 224))
    strength[0, 0], strength[-1, -1] = -2, 2
    picture = paint(strength, tiles[0], "signed", colormap=EVIDENCE)
    pixels = np.asarray(Image.open(BytesIO(png(picture.heatmap))).convert("RGBA")).astype(int)
    assert pixels[0, 0].tolist() == [*AGAINST, 255]
    assert pixels[-1, -1].tolist() == [*FOR, 255]
    assert pixels[100, 100, 3] <= 1


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_an_overlay_of_evidence_keeps_the_tile_where_there_is_none(alpha: float) -> None:
    strength = np.zeros((224, 224))
    strength[:112] = 1
    tile = np.full((224, 224, 3), 200, dtype=np.uint8)
    pixels = pixels_of(paint(strength, tile, colormap=EVIDENCE, alpha=alpha).overlay)
    assert np.abs(pixels[:111] - (np.array(FOR) * alpha + 200 * (1 - alpha))).max() <= 1
    assert (pixels[113:] == 200).all()
