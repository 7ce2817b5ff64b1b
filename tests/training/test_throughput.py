from dataclasses import replace

from training.recipe import SCRATCH, STRONG, Stage
from training.throughput import measure


def test_the_projection_follows_from_the_measured_rates() -> None:
    stages = (Stage(32, steps=500, batch_size=4), Stage(48, epochs=2, batch_size=4, distillation=0.5))
    report = measure(replace(SCRATCH, stages=stages), steps=2, tiles=40)
    rates = report["images_per_second"]
    assert rates["shuffled tiles"] > rates["with augmentation"] > 0
    first, second = report["stages"]
    assert second["steps"] == 2 * 89_996 // 4
    tiles = [stage["steps"] * stage["batch_size"] for stage in (first, second)]
    hours = sum(count / stage["images_per_second"] for count, stage in zip(tiles, (first, second), strict=True)) / 3600
    assert abs(report["projected_hours"] - hours) < 0.05 * hours + 0.01


def test_the_strong_recipe_is_timed_as_it_is() -> None:
    small = replace(STRONG, stages=(Stage(32, epochs=1, batch_size=4),))
    assert measure(small, steps=1, tiles=40)["stages"][0]["size"] == 32
