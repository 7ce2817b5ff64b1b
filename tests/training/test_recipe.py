from dataclasses import replace

import pytest

from training.recipe import CLASSIC, STRONG
from training.train import parse_arguments, recipe_from

STAGED = replace(STRONG, stages=((4, 64), (2, 112)))


def test_classic_is_the_published_recipe() -> None:
    assert (CLASSIC.init, CLASSIC.freeze, CLASSIC.epochs, CLASSIC.batch_size) == ("imagenet", True, 20, 128)
    assert (CLASSIC.optimizer, CLASSIC.learning_rate, CLASSIC.schedule) == ("adam", 1e-4, "plateau")
    assert CLASSIC.stages == ((20, 224),)


def test_stages_follow_each_other() -> None:
    assert [STAGED.stage_at(epoch)[2] for epoch in range(7)] == [64, 64, 64, 64, 112, 112, 112]


def test_the_rate_warms_up_falls_and_restarts_at_half() -> None:
    rates = [STAGED.rate_factor(epoch) for epoch in range(6)]
    assert rates[0] == 0.1
    assert rates[1] > rates[2] > rates[3]
    assert rates[4] == pytest.approx(0.5)


def test_the_command_line_changes_what_it_names_and_nothing_else() -> None:
    plain = parse_arguments(["--data", "x.npz"])
    assert recipe_from(plain) == CLASSIC
    changed = parse_arguments(
        ["--data", "x.npz", "--init", "random", "--no-freeze", "--epochs", "3", "--input-size", "64"]
    )
    assert recipe_from(changed) == replace(CLASSIC, init="random", freeze=False, stages=((3, 64),))
