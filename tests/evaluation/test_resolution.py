"""Agreement between resolutions, on the shipped model."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.resolution import difference_from_pillow, from_enlarged, from_originals, markdown, read_originals
from handler.model.checkpoint import Model
from training.data import DataError, Split
from training.synthetic import generate, tile


@pytest.fixture(scope="module")
def originals() -> Split:
    random = np.random.default_rng(0)
    images = np.stack([tile(class_id, random, size=224) for class_id in (2, 7)])
    return Split(images, np.array([2, 7]))


def test_an_original_gets_the_answer_of_its_28_pixel_tile(model: Model, originals: Split) -> None:
    assert difference_from_pillow(originals.images, model.preprocessing) == 0
    rows = {(row.kind, row.way): row for row in from_originals(model, originals)}
    assert rows["original, 224", "as served"].agreement == 1
    assert {row.images for row in rows.values()} == {2}


def test_every_kind_of_image_is_a_line_of_the_table(model: Model) -> None:
    table = markdown(list(from_enlarged(model, generate(2, seed=3))))
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == [
        f"| enlarged to {size}, {name}" for size in (224, 64) for name in ("nearest", "bilinear", "bicubic")
    ]


def test_originals_are_read_by_their_names(tmp_path: Path, originals: Split) -> None:
    for image, code in zip(originals.images, ("DEB", "STR"), strict=True):
        Image.fromarray(image).save(tmp_path / f"{code}-1.png")
    found = read_originals(tmp_path)
    assert np.array_equal(found.images, originals.images)
    assert np.array_equal(found.labels, originals.labels)


@pytest.mark.parametrize(("name", "side"), [("XYZ-1.png", 224), ("STR-1.png", 28), ("STR-1.txt", 224)])
def test_a_folder_without_originals_is_refused(name: str, side: int, tmp_path: Path) -> None:
    Image.new("RGB", (side, side)).save(tmp_path / name, "PNG")
    with pytest.raises(DataError):
        read_originals(tmp_path)
