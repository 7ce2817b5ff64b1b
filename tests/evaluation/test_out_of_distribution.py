import numpy as np
import pytest
import torch
from pytorch_ood.detector import KNN, Mahalanobis, ViM
from pytorch_ood.metrics import OODMetrics

from evaluation.out_of_distribution import (
    NEIGHBOURS,
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


def test_distances_are_those_of_pytorch_ood() -> None:
    # Many points in few dimensions, so that shrinking the covariance changes next to nothing.
    random = np.random.default_rng(1)
    labels = np.arange(18_000) % 9
    points = CENTRES[labels][:, :8] + random.normal(0, 1, (len(labels), 8)) * np.linspace(0.5, 2, 8)
    others = random.normal(0, 6, (40, 8))
    score = mahalanobis(*gaussian_classes(points, labels))(others, np.zeros((40, 9)))
    detector = Mahalanobis(None).fit_features(torch.from_numpy(points).float(), torch.from_numpy(labels))
    expected = detector.predict_features(torch.from_numpy(others).float()).numpy()
    # Half the distance, with the sum of squares in place of their mean.
    assert np.allclose(score, expected * 2 * len(labels), rtol=0.01)


def test_nearest_neighbours_are_those_of_pytorch_ood() -> None:
    detector = KNN(None, k=NEIGHBOURS, normalize=False).fit_features(torch.from_numpy(INSIDE), torch.from_numpy(LABELS))
    expected = detector.predict_features(torch.from_numpy(OUTSIDE)).numpy()
    assert np.allclose(nearest_neighbours(INSIDE)(OUTSIDE, np.zeros((50, 9))), expected, rtol=1e-5)


def test_virtual_logits_are_those_of_pytorch_ood() -> None:
    # With no bias its origin is zero; ours is the mean, so the points have none.
    centred = INSIDE - INSIDE.mean(axis=0)
    weights = RNG.normal(0, 0.1, (9, 160))
    detector = ViM(None, 80, torch.from_numpy(weights), torch.zeros(9))
    detector.fit_features(torch.from_numpy(centred).float(), torch.from_numpy(LABELS))
    expected = detector.predict_features(torch.from_numpy(OUTSIDE)).numpy()
    score = vim(centred, centred @ weights.T)
    assert np.allclose(score(OUTSIDE, OUTSIDE @ weights.T), expected, rtol=1e-3, atol=1e-3)


def test_separation_is_that_of_pytorch_ood() -> None:
    one, other = RNG.normal(size=2000), RNG.normal(1, 1, size=1500)
    metrics = OODMetrics()
    # It counts tiles taken for foreign images, so foreign images take the tiles' place here.
    truth = torch.cat([-torch.ones(2000), torch.zeros(1500)])
    metrics.update(torch.from_numpy(-np.r_[one, other]), truth)
    expected = metrics.compute()
    found = separation(one, other)
    assert found["auroc"] == pytest.approx(expected["AUROC"], abs=1e-4)
    assert found["fpr95"] == pytest.approx(expected["FPR95TPR"], abs=0.01)
