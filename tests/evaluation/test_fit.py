"""The limits of a picture that is fit to be judged: what few tiles exceed under harmless changes."""

import numpy as np
import pytest

from evaluation.changes import CHANGES, FAULTS, SHIFTS
from evaluation.fit import (
    EXCEEDING,
    LOWER,
    UNCHANGED,
    Seen,
    aims,
    choose_limits,
    evaluate,
    judge,
    lost,
    markdown,
    named,
)
from handler.classes import CODES, NUM_CLASSES
from handler.classifier import Classifier
from handler.model.fit import BACKGROUND, Quality
from handler.model.prediction import FitLimits, Prediction
from training.synthetic import generate

TILES = 500
FIGURES = tuple(Quality.__dataclass_fields__)


def seen(right: float, seed: int, code: str = "TUM", **shifts: float) -> Seen:
    """Tiles with normally distributed figures, of which a share is right; some figures are shifted."""
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(1, 0.1, TILES) + shifts.get(name, 0) for name in FIGURES}
    qualities = [Quality(*row) for row in np.stack([values[name] for name in FIGURES], axis=1).tolist()]
    logits = np.eye(NUM_CLASSES)[CODES.index(code)]
    scores = rng.normal(1, 0.1, TILES) + shifts.get("ood_ratio", 0)
    predictions = [Prediction(logits, logits, True, score, 1.0, {}) for score in scores]
    return Seen(qualities, predictions, np.arange(TILES) < right * TILES)


EXAMPLE = {
    UNCHANGED: seen(0.9, 0),
    "harmless": seen(0.89, 1, noise=0.2, focus=-0.2),
    "costly": seen(0.85, 2, blocks=0.15),
    "harmful": seen(0.6, 3, noise=2.0, focus=-0.8),
}


def test_every_limit_is_the_strictest_that_few_exceed_under_a_harmless_change() -> None:
    limits = choose_limits(EXAMPLE)
    assert lost(EXAMPLE) == pytest.approx({UNCHANGED: 0, "harmless": 1, "costly": 5, "harmful": 30})
    for name in FitLimits.__dataclass_fields__:
        limit = -getattr(limits, name) if name in LOWER else getattr(limits, name)
        shares = [(EXAMPLE[change].faults(name) > limit).mean() for change in (UNCHANGED, "harmless")]
        assert max(shares) == pytest.approx(EXCEEDING, abs=0.003)


def test_a_harmful_change_is_flagged_for_its_reason_and_the_aims_are_read_off() -> None:
    rows = judge(EXAMPLE, choose_limits(EXAMPLE))
    assert rows["harmful"]["flagged"] > 0.99
    assert {"noisy", "out_of_focus"} <= set(rows["harmful"]["reasons"])
    found = aims(rows)
    assert (found["harmful"]["changes"], found["harmful"]["least_flagged"]) == (1, "harmful")
    assert found["harmless"]["changes"] == 2
    assert found["harmless"]["flagged"] == max(rows[UNCHANGED]["flagged"], rows["harmless"]["flagged"])


def test_glass_sets_no_limit_to_tissue_and_its_colour() -> None:
    limits = choose_limits({UNCHANGED: seen(0.9, 4, code=CODES[BACKGROUND], tissue=-0.9, saturation=-0.9)})
    assert limits.tissue == limits.saturation == 1


def test_strengths_that_choose_do_not_judge() -> None:
    assert not set(named(SHIFTS, FAULTS)) & set(named(CHANGES))
    assert not set(named(SHIFTS)) & set(named(FAULTS))


def test_the_command_writes_limits_and_both_tables(classifier: Classifier) -> None:
    tiles = generate(9, seed=3)
    report = evaluate(classifier, tiles, tiles, 100)
    assert report["model"] == classifier.model.digest
    assert (report["validation_tiles"], report["test_tiles"], report["test_split"]) == (9, 9, 100)
    assert FitLimits(**report["limits"])
    assert list(report["test"]) == [UNCHANGED, *named(CHANGES)]
    assert list(report["validation"]) == [UNCHANGED, *named(SHIFTS, FAULTS)]
    text = markdown(report)
    for name in (*report["test"], *report["limits"]):
        assert name in text
