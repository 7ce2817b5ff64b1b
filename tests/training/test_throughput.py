from dataclasses import replace

import pytest

from handler.model.preprocess import Preprocessing
from training.compact import CompactCNN
from training.recipe import DISTILLED, STRONG, Recipe
from training.throughput import TRAIN_TILES, VAL_TILES, measure, networks


@pytest.mark.parametrize("recipe", [replace(STRONG, stages=((3, 48),)), replace(DISTILLED, stages=((3, 28),))])
def test_the_projection_follows_from_the_measured_rate(recipe: Recipe) -> None:
    recipe = replace(recipe, batch_size=4)
    found = measure(recipe, steps=2, tiles=40)
    rates = found["images_per_second"]
    assert rates["loader"] > rates["loader and augmentation"] > 0
    hours = 3 * (TRAIN_TILES + VAL_TILES / 3) / rates["training step"] / 3600
    assert abs(found["projected_hours"] - hours) < 0.05 * hours + 0.01


def test_the_distilled_recipe_is_timed_with_the_network_it_trains() -> None:
    network, teacher = networks(DISTILLED, Preprocessing())
    assert isinstance(network, CompactCNN)
    assert teacher is not None
