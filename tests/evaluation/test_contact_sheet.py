import numpy as np
import pytest
from PIL import Image

from evaluation.contact_sheet import CAPTION, CELL, METHODS, draw_sheet, draw_strip
from handler.classifier import Classifier
from training.checkpoint import SHIPPED
from training.synthetic import generate


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load(SHIPPED)


def test_tiles_are_spread_over_the_classes() -> None:
    split = generate(90, seed=0).of_every_class(45)
    assert split.labels.tolist() == sorted(list(range(9)) * 5)


def test_a_strip_is_the_tile_and_one_picture_for_each_method(classifier: Classifier) -> None:
    tile = generate(1, seed=0, size=CELL - 2).images[0]
    strip = np.asarray(draw_strip(classifier, tile, class_id=0))
    assert strip.shape == (CAPTION + CELL, CELL * (1 + len(METHODS)), 3)
    cells = [strip[CAPTION : CAPTION + CELL - 2, CELL * at : CELL * at + CELL - 2] for at in range(1 + len(METHODS))]
    assert np.array_equal(cells[0], tile)
    assert len({cell.tobytes() for cell in cells}) == len(cells)


def test_a_sheet_has_a_place_for_every_tile(classifier: Classifier) -> None:
    sheet = draw_sheet(classifier, generate(2, seed=0))
    assert isinstance(sheet, Image.Image)
    assert sheet.height == CAPTION + CAPTION + CELL
