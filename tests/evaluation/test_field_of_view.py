"""Half and twice the field of view, made from the images themselves."""

import numpy as np
import pytest

from evaluation.field_of_view import FIELDS, half, markdown, measure, mosaics, reflected
from handler.classifier import Classifier
from training.data import Split
from training.synthetic import generate


@pytest.fixture(scope="module")
def tiles() -> Split:
    return generate(18, seed=6)


def test_half_is_the_centre_quarter_of_the_image(tiles: Split) -> None:
    assert (half(tiles) == tiles.images[:, 7:21, 7:21]).all()


def test_a_mosaic_holds_tiles_of_its_class_alone(tiles: Split) -> None:
    images = mosaics(tiles)
    assert images.shape == (18, 56, 56, 3)
    for image, own, label in zip(images, tiles.images, tiles.labels, strict=True):
        parts = [image[top : top + 28, left : left + 28] for top in (0, 28) for left in (0, 28)]
        assert (parts[0] == own).all()
        peers = tiles.images[tiles.labels == label]
        assert all(any((part == peer).all() for peer in peers) for part in parts)


def test_reflections_surround_the_smaller_image_without_a_seam(tiles: Split) -> None:
    images = reflected(tiles).astype(int)
    assert images.shape == tiles.images.shape
    centre = images[:, 7:21, 7:21]
    assert (images[:, 7:21, :7] == centre[:, :, :7][:, :, ::-1]).all()
    assert (images[:, 21:, 7:21] == centre[:, -7:][:, ::-1]).all()


def test_every_field_is_counted_against_the_images_own_class(tiles: Split, classifier: Classifier) -> None:
    report = measure(classifier, tiles)
    assert list(report["fields"]) == ["a tile's own", *FIELDS]
    for name in FIELDS:
        row = report["fields"][name]
        assert row["changed"]["low"] <= row["changed"]["share"] <= row["changed"]["high"]
        # The accuracy cannot move by more than the share of classes that change.
        assert abs(row["accuracy"] - report["fields"]["a tile's own"]["accuracy"]) <= row["changed"]["share"] + 1e-9
    assert np.isclose(report["images"], 18)
    assert len(markdown({"generated": report}).splitlines()) == 2 + 1 + len(FIELDS)
