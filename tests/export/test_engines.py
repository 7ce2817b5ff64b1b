"""What an engine keeps of PyTorch's answers, in figures."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import export.engines
from export.engines import Answers, Row, compare, measure
from training.data import Split
from training.synthetic import generate

LABELS = np.array([0, 1, 2, 3])


def answers(classes: list[int]) -> Answers:
    probabilities = np.full((len(classes), 9), 0.05)
    probabilities[np.arange(len(classes)), classes] = 0.6
    maps = np.random.default_rng(0).normal(size=(len(classes), 9, 7, 7)).astype(np.float32)
    return Answers(np.array(classes), probabilities, [(item,) for item in classes], ["fit"] * len(classes), maps)


def test_equal_answers_lose_nothing() -> None:
    row = compare("engine", answers([0, 1, 2, 4]), answers([0, 1, 2, 4]), LABELS)
    assert row == Row("engine", 4, 0.75, 0, 1, 1, 1, 0, 0, 0, 0)
    assert row.serves


def test_losses_are_shares_of_the_tiles() -> None:
    expected = answers([0, 1, 2, 4])
    found = answers([0, 1, 3, 4])
    found = replace(found, verdicts=["fit", "unfit", "unfit", "fit"], maps=1.5 * expected.maps)
    row = compare("engine", found, expected, LABELS)
    assert (row.accuracy, row.accuracy_drop) == (0.5, 0.25)
    assert (row.same_class, row.same_set, row.same_verdict) == (0.75, 0.75, 0.5)
    assert row.probability_difference_mean == pytest.approx(0.55 / 4)
    assert row.probability_difference_max == pytest.approx(0.55)
    assert row.map_error_median == pytest.approx(0.5)
    assert not row.serves


def test_an_engine_that_loses_too_much_ends_the_command(monkeypatch: pytest.MonkeyPatch, shared: Path) -> None:
    row = compare("engine", answers([0, 1, 3, 4]), answers([0, 1, 2, 4]), LABELS)
    monkeypatch.setattr(export.engines, "measure", lambda *_: [row, {"engine": "abacus", "missing": "no beads"}])
    monkeypatch.setattr(sys, "argv", ["engines", "--data", str(shared / "pathmnist.npz")])
    with pytest.raises(SystemExit, match="engine may not serve"):
        export.engines.main()


def test_the_engines_of_the_archive_keep_their_answers(model_store: Path) -> None:
    generated = generate(36, seed=11)
    split = Split(generated.images, generated.labels)
    rows = measure(model_store / "pathmnist.mar", ["torch", "openvino-int8", "tensorrt"], split)
    same, reduced, missing = rows
    assert isinstance(same, Row)
    assert (same.same_class, same.map_error_99th) == (1, 0)
    assert isinstance(missing, dict) or missing.same_class > 0.95
    if isinstance(reduced, dict):
        pytest.skip(reduced["missing"])
    assert reduced.same_class > 0.95
    assert 0 < reduced.map_error_median < 0.1
