import numpy as np
import pytest
import torch

from evaluation.out_of_distribution import (
    foreign_images,
    gaussian_classes,
    mahalanobis,
    nearest_neighbours,
    separation,
    vim,
)
from handler.model.calibration import Confidence
from tests.conftest import Pixels

RNG = np.random.default_rng(0)
LABELS = np.arange(450) % 9
CENTRES = RNG.normal(0, 5, (9, 160))
INSIDE = CENTRES[LABELS] + RNG.normal(0, 1, (450, 160)) * np.linspace(0.1, 2, 160)
OUTSIDE = RNG.normal(0, 6, (50, 160))


def test_every_score_tells_far_points_from_near_ones() -> None:
    fresh = CENTRES[LABELS[:90]] + RNG.normal(0, 1, (90, 160)) * np.linspace(0.1, 2, 160)
    logits = np.ones((450, 9))
    for score in (mahalanobis(*gaussian_classes(INSIDE, LABELS)), nearest_neighbours(INSIDE), vim(INSIDE, logits)):
        found = separation(score(fresh, logits[:90]), score(OUTSIDE, logits[:50]))
        assert found["auroc"] > 0.99
        assert found["fpr95"] < 0.05


def test_what_is_alike_is_not_separated() -> None:
    one, other = RNG.normal(size=2000), RNG.normal(size=2000)
    found = separation(one, other)
    assert found["auroc"] == pytest.approx(0.5, abs=0.03)
    assert found["fpr95"] == pytest.approx(0.95, abs=0.02)


def test_the_server_measures_the_same_distance() -> None:
    means, whitening = gaussian_classes(INSIDE, LABELS)
    served = Confidence(
        temperature=1.0,
        thresholds={},
        ood_threshold=0.0,
        calibrated_on="",
        class_means=torch.from_numpy(means),
        whitening=torch.from_numpy(whitening),
    )
    expected = mahalanobis(*gaussian_classes(INSIDE, LABELS))(OUTSIDE, np.zeros((50, 9)))
    assert np.allclose(served.ood_scores(torch.from_numpy(OUTSIDE)), expected)


def test_foreign_images_have_the_tiles_form_and_come_again(tiles: Pixels) -> None:
    found, again = foreign_images(tiles), foreign_images(tiles)
    for kind, images in found.items():
        assert images.shape[1:] == (28, 28, 3), kind
        assert images.dtype == np.uint8
        assert np.array_equal(images, again[kind])
    assert not np.array_equal(found["colours swapped"], tiles)
