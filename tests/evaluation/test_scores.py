import numpy as np
import pytest
from medmnist.evaluator import getAUC
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from evaluation.scores import from_confusion, measure, ranked_auc
from handler.classes import CODES

RNG = np.random.default_rng(3)
LABELS = RNG.integers(0, 9, 300)
PROBABILITIES = RNG.dirichlet(np.ones(9), 300) * 0.5 + 0.5 * np.eye(9)[np.where(RNG.random(300) < 0.5, LABELS, 7)]


def test_scores_of_confusion_matrices_are_scikit_learns() -> None:
    predicted = PROBABILITIES.argmax(axis=1)
    found = from_confusion(confusion_matrix(LABELS, predicted, labels=range(9))[None])
    assert found["balanced_accuracy"][0] == pytest.approx(balanced_accuracy_score(LABELS, predicted))
    for name, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        expected = score(LABELS, predicted, labels=range(9), average=None, zero_division=0)
        assert np.allclose([found[f"{name} {code}"][0] for code in CODES], expected)


@pytest.mark.parametrize("digits", [1, 16])
def test_ranks_give_medmnists_auc_with_ties_and_without(digits: int) -> None:
    probabilities = PROBABILITIES.round(digits)
    expected = getAUC(LABELS, probabilities, "multi-class")
    assert ranked_auc(probabilities, LABELS) == pytest.approx(expected, abs=1e-12)


def test_every_score_lies_in_its_interval() -> None:
    result = measure(PROBABILITIES, LABELS, resamples=200)
    entries = [result[name] for name in ("accuracy", "balanced_accuracy", "auc")]
    entries += [row[name] for row in result["classes"].values() for name in ("precision", "recall", "f1")]
    for entry in entries:
        low, high = entry["interval"]
        assert low <= entry["value"] <= high
    assert np.array(result["confusion_matrix"]).sum() == result["images"] == 300


def test_intervals_narrow_with_the_number_of_images() -> None:
    few = measure(PROBABILITIES[:60], LABELS[:60], resamples=200)["accuracy"]["interval"]
    many = measure(PROBABILITIES, LABELS, resamples=200)["accuracy"]["interval"]
    assert many[1] - many[0] < few[1] - few[0]


def test_a_perfect_answer_is_perfect() -> None:
    result = measure(np.eye(9)[LABELS], LABELS, resamples=50)
    assert [result[name]["value"] for name in ("accuracy", "balanced_accuracy", "auc")] == [1, 1, 1]
    assert result["averages"]["macro"] == {"precision": 1, "recall": 1, "f1": 1}
