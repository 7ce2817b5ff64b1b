import json
from dataclasses import asdict, replace
from itertools import pairwise

import pytest

from training.options import parse_arguments, recipe_from
from training.recipe import CLASSIC, RECIPES, SCRATCH, STRONG, Recipe, Stage

STAGED = replace(
    STRONG,
    stages=(Stage(64, steps=40), Stage(112, steps=20, batch_size=32), Stage(224, steps=10, rate_ceiling=1e-5)),
    warm_up=10,
    rate_floor=0.01,
)


def test_classic_is_the_published_recipe() -> None:
    assert (CLASSIC.init, CLASSIC.freeze, CLASSIC.patience) == ("imagenet", True, 5)
    assert (CLASSIC.optimizer, CLASSIC.learning_rate, CLASSIC.schedule) == ("adam", 1e-4, "plateau")
    assert CLASSIC.stages == (Stage(224, epochs=20, batch_size=128),)


def test_epochs_become_steps_of_the_data_and_the_devices() -> None:
    official = CLASSIC.in_steps(89_996)
    assert (official.steps, official.validation_steps) == (20 * 703, 703)
    assert CLASSIC.in_steps(89_996, devices=4).steps == 20 * 175
    assert SCRATCH.in_steps(89_996, devices=4).steps == SCRATCH.in_steps(849).steps == SCRATCH.steps


def test_stages_follow_each_other() -> None:
    assert [STAGED.stage_at(step)[0].size for step in (0, 39, 40, 59, 60, 69)] == [64, 64, 112, 112, 224, 224]
    assert STAGED.stage_at(65)[1] == 0.5


def test_tiles_are_counted_by_each_stages_batch() -> None:
    assert [STAGED.position(step) for step in (0, 1, 40, 41, 60, 61)] == [0, 128, 5120, 5152, 5760, 5888]
    assert STAGED.position(41, devices=2) == 2 * 5152


def test_the_rate_warms_up_falls_and_ends_under_the_last_stages_ceiling() -> None:
    rates = [STAGED.cosine_rate(step) for step in range(70)]
    assert rates[0] < 0.11 * STAGED.learning_rate
    assert rates.index(max(rates)) == 9
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert rates[60] == pytest.approx(1e-5)
    assert rates[69] == pytest.approx(1e-6)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    assert Recipe.from_json(json.loads(json.dumps(asdict(recipe)))) == recipe


def test_the_command_line_changes_what_it_names_and_nothing_else() -> None:
    plain = parse_arguments(["--data", "x.npz"])
    assert recipe_from(plain) == CLASSIC
    options = ["--init", "random", "--no-freeze", "--epochs", "3", "--input-size", "64"]
    changed = parse_arguments(["--data", "x.npz", *options])
    assert recipe_from(changed) == replace(CLASSIC, init="random", freeze=False, stages=(Stage(64, epochs=3),))
    smaller = parse_arguments(["--data", "x.npz", "--recipe", "scratch", "--batch-size", "8"])
    assert [stage.steps for stage in recipe_from(smaller).stages] == [stage.steps for stage in SCRATCH.stages]
    assert {stage.batch_size for stage in recipe_from(smaller).stages} == {8}
