import base64
from io import BytesIO

import numpy as np
import pytest
from cmap import Colormap
from PIL import Image

from handler.render import COLORMAP, draw
from tests.conftest import Pixels


def decode(picture: str) -> Image.Image:
    image = Image.open(BytesIO(base64.b64decode(picture)))
    image.load()
    return image.convert("RGB")


@pytest.mark.parametrize(
    ("shape", "size"),
    [((28, 28), (224, 224)), ((100, 200), (224, 112)), ((600, 300), (112, 224)), ((16, 9000), (224, 1))],
)
def test_pictures_have_the_images_aspect(shape: tuple[int, int], size: tuple[int, int]) -> None:
    picture = draw(np.eye(7, dtype=np.float32), np.zeros((*shape, 3), dtype=np.uint8))
    assert decode(picture.heatmap).size == decode(picture.overlay).size == size


def test_the_extremes_have_the_colour_maps_ends(tiles: Pixels) -> None:
    strength = np.zeros((224, 224), dtype=np.float32)
    strength[100, 50] = 3
    picture = draw(strength, tiles[0])
    pixels = np.asarray(decode(picture.heatmap))
    ends = np.rint(Colormap(COLORMAP).lut(256)[[0, -1], :3] * 255)
    assert (pixels[0, 0] == ends[0]).all()
    assert (pixels[100, 50] == ends[1]).all()
    assert (picture.low, picture.high) == (0, 3)


def test_a_constant_map_is_drawn_darkest(tiles: Pixels) -> None:
    pixels = np.asarray(decode(draw(np.full((7, 7), 2, dtype=np.float32), tiles[0]).heatmap))
    assert (pixels == np.rint(Colormap(COLORMAP).lut(256)[0, :3] * 255)).all()


def test_the_overlay_is_half_image_half_map(tiles: Pixels) -> None:
    picture = draw(np.zeros((7, 7), dtype=np.float32), np.full((224, 224, 3), 200, dtype=np.uint8))
    heatmap, overlay = (np.asarray(decode(item)).astype(int) for item in (picture.heatmap, picture.overlay))
    assert np.abs(overlay - (heatmap + 200) / 2).max() <= 1
