from dataclasses import replace

from training.recipe import STRONG
from training.throughput import TRAIN_TILES, VAL_TILES, measure


def test_the_projection_follows_from_the_measured_rate() -> None:
    recipe = replace(STRONG, batch_size=4, stages=((3, 48),))
    found = measure(recipe, steps=2, tiles=40)
    rates = found["images_per_second"]
    assert rates["loader"] > rates["loader and augmentation"] > 0
    hours = 3 * (TRAIN_TILES + VAL_TILES / 3) / rates["training step"] / 3600
    assert abs(found["projected_hours"] - hours) < 0.05 * hours + 0.01
