"""The report on real tiles, small."""

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation import explanations as evaluate_explanations
from evaluation.explanations import CONTROLS, MEASURES, evaluate, interval, markdown, plot, summarise
from evaluation.faithfulness import STAGES
from handler.classifier import Classifier
from handler.model.checkpoint import WEIGHTS, Model
from training.checkpoint import SHIPPED
from training.data import PathMNIST, Split


@pytest.fixture
def few_methods(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names = ["gradcam", "guided_backprop"]
    monkeypatch.setattr(evaluate_explanations, "EVALUATED", names)
    return names


def test_a_report_has_every_measure_of_every_method(
    few_methods: list[str], model: Model, real_data: PathMNIST, tmp_path: Path
) -> None:
    split = Split(real_data.test.images[:30], real_data.test.labels[:30])
    summary = summarise(evaluate(model, SHIPPED / WEIGHTS, split, tiles=3, randomised_tiles=1))
    assert list(summary["methods"]) == [*few_methods, *CONTROLS]
    assert summary["model"] == model.digest
    for measures in summary["methods"].values():
        for measure in MEASURES:
            low, high = measures[measure]["interval"]
            assert low <= measures[measure]["mean"] <= high
        assert list(measures["randomisation"]["by_stage"]) == list(STAGES)
    # An edge detector ignores the weights.
    assert summary["methods"]["edge detector"]["randomisation"]["mean"] == pytest.approx(1)
    assert summary["methods"]["gradcam"]["randomisation"]["mean"] < 0.9
    assert 0 < summary["methods"]["gradcam"]["sensitivity"]["mean"] < 1
    json.dumps(summary, allow_nan=False)
    table = markdown(summary)
    assert all(f"| {name} |" in table for name in summary["methods"])
    plot(summary, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().count("<svg") == 1


def test_a_classifier_is_measured_for_the_class_it_predicts(classifier: Classifier, real_data: PathMNIST) -> None:
    image = real_data.test.images[4]
    subject = evaluate_explanations.Subject(classifier, image)
    probabilities = subject.probability(subject.inputs)
    assert probabilities.shape == (1,)
    assert float(probabilities) > 1 / 9
    other = evaluate_explanations.Subject(classifier, image, target=0)
    assert float(other.probability(other.inputs)) <= float(probabilities)


def test_intervals_hold_the_mean_and_narrow_with_more_tiles() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for count in (20, 500):
        low, high = interval(rng.normal(3, 1, count))
        assert low < 3.3
        assert high > 2.7
        widths.append(high - low)
    assert widths[1] < widths[0] / 3
    assert interval(np.full(5, 0.5)) == [0.5, 0.5]
