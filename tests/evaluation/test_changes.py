"""Changes of pixels do what their names say, and the same each time."""

import numpy as np
import pytest
from PIL import Image

from evaluation.changes import (
    CHANGES,
    SHIFTS,
    blur,
    brightness,
    change_all,
    channel_gain,
    channel_shift,
    enlarge_and_reduce,
    hue,
    jpeg,
    noise,
    saturation,
    stain,
)
from tests.conftest import Pixels


@pytest.fixture
def picture(tiles: Pixels) -> Image.Image:
    return Image.fromarray(tiles[8])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def distance(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).mean())


def test_changes_of_no_strength_change_nothing(picture: Image.Image, rng: np.random.Generator) -> None:
    assert distance(stain(picture, rng, (1.0, 1.0)), picture) < 1
    assert distance(hue(picture, rng, 0.0), picture) < 2
    for change in (brightness, saturation):
        assert distance(change(picture, rng, 1.0), picture) == 0
    for random_change in (channel_gain, channel_shift, noise):
        assert distance(random_change(picture, rng, 0.0), picture) == 0


def test_stronger_changes_change_more(picture: Image.Image, rng: np.random.Generator) -> None:
    for weak, strong in (
        (jpeg(picture, rng, 90), jpeg(picture, rng, 10)),
        (blur(picture, rng, 0.4), blur(picture, rng, 2.0)),
        (brightness(picture, rng, 0.9), brightness(picture, rng, 0.5)),
        (hue(picture, rng, 0.02), hue(picture, rng, 0.2)),
        (stain(picture, rng, (1.1, 1.0)), stain(picture, rng, (1.6, 1.0))),
        (noise(picture, rng, 0.01), noise(picture, rng, 0.1)),
        (enlarge_and_reduce(picture, rng, 224), enlarge_and_reduce(picture, rng, 14)),
    ):
        assert distance(weak, picture) < distance(strong, picture)


def test_more_haematoxylin_is_darker_and_less_is_lighter(picture: Image.Image, rng: np.random.Generator) -> None:
    means = [np.asarray(stain(picture, rng, (amount, 1.0))).mean() for amount in (0.5, 1.0, 1.5)]
    assert means == sorted(means, reverse=True)


def test_random_channel_changes_stay_within_their_strength(rng: np.random.Generator) -> None:
    grey = Image.new("RGB", (4, 4), (100, 100, 100))
    for _ in range(20):
        assert np.abs(np.asarray(channel_gain(grey, rng, 0.05)).astype(int) - 100).max() <= 5
        assert np.abs(np.asarray(channel_shift(grey, rng, 0.05)).astype(int) - 100).max() <= 13


def test_every_change_gives_images_of_one_size_and_comes_again(tiles: Pixels) -> None:
    for changes in (SHIFTS, CHANGES):
        for kind, strengths in changes.items():
            for strength, change in strengths.items():
                changed = change_all(tiles[:2], change)
                side = int(strength) if kind == "enlarged to, pixels" else 28
                assert changed.shape == (2, side, side, 3), kind
                assert changed.dtype == np.uint8
                assert np.array_equal(changed, change_all(tiles[:2], change))


def test_no_strength_both_calibrates_and_judges() -> None:
    for kind in SHIFTS:
        assert not set(SHIFTS[kind]) & set(CHANGES[kind]), kind
