"""Scores of class probabilities against labels, each with a bootstrap interval.

Point values are scikit-learn's and, for the AUC, MedMNIST's own evaluator's. Intervals are 95 % percentile intervals
over resampled tiles; the tiles of one slide resemble each other, which these intervals know nothing of.
"""

from typing import Any

import numpy as np
from medmnist.evaluator import getAUC
from numpy.typing import NDArray
from scipy.stats import binomtest, rankdata
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, precision_recall_fscore_support

from handler.classes import CODES, NUM_CLASSES

RESAMPLES = 1000
CLASSES = list(range(NUM_CLASSES))
# MedMNIST's name for what PathMNIST is.
TASK = "multi-class"

Probabilities = NDArray[np.float64]
Labels = NDArray[np.int64]


def measure(probabilities: Probabilities, labels: Labels, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Every score of `[N, 9]` probabilities: overall, averaged, per class, and the confusion matrix (rows: truth)."""
    predicted = probabilities.argmax(axis=1)
    intervals = _intervals(probabilities, labels, resamples)
    point = {
        "accuracy": accuracy_score(labels, predicted),
        "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        "auc": getAUC(labels, probabilities, TASK),
    }
    overall = {name: _entry(value, intervals[name]) for name, value in point.items()}
    averages = {
        average: _scores(precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)[:3])
        for average in ("macro", "weighted")
    }
    matrix = confusion_matrix(labels, predicted, labels=CLASSES)
    columns = precision_recall_fscore_support(labels, predicted, labels=CLASSES, zero_division=0)
    classes = {}
    for class_id, code in enumerate(CODES):
        precision, recall, f1, support = (column[class_id] for column in columns)
        right = ((predicted == class_id) == (labels == class_id)).mean()
        classes[code] = {
            "images": int(support),
            "accuracy": _round(right),
            **{
                name: _entry(value, intervals[f"{name} {code}"])
                for name, value in (("precision", precision), ("recall", recall), ("f1", f1))
            },
        }
    return {
        "images": len(labels),
        **overall,
        "averages": averages,
        "classes": classes,
        "confusion_matrix": matrix.tolist(),
    }


def from_confusion(matrix: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Scores of a stack of confusion matrices `[R, 9, 9]`; a class that a resample lacks is left out of its mean."""
    right = np.diagonal(matrix, axis1=1, axis2=2).astype(float)
    truth, predicted = matrix.sum(axis=2), matrix.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(truth > 0, right / truth, np.nan)
        precision = np.where(predicted > 0, right / predicted, 0)
        f1 = np.where(truth + predicted > 0, 2 * right / (truth + predicted), 0)
    found = {
        "accuracy": right.sum(axis=1) / matrix.sum(axis=(1, 2)),
        "balanced_accuracy": np.nanmean(recall, axis=1),
    }
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        found |= {f"{name} {code}": values[:, class_id] for class_id, code in enumerate(CODES)}
    return found


def ranked_auc(probabilities: Probabilities, labels: Labels) -> float:
    """MedMNIST's AUC, the mean over classes of each against the rest, by Mann and Whitney's ranks; every class occurs.

    Thirty times as fast, for resamples.
    """
    ranks = rankdata(probabilities, axis=0)
    truth = labels[:, None] == np.arange(NUM_CLASSES)
    positives = truth.sum(axis=0)
    above = (ranks * truth).sum(axis=0) - positives * (positives + 1) / 2
    return float((above / (positives * (len(labels) - positives))).mean())


def with_interval(row: dict[str, Any], key: str = "value") -> str:
    """A score of a report as text, with its interval where it has one."""
    if row["interval"] is None:
        return f"{row[key]:.4f}"
    low, high = row["interval"]
    return f"{row[key]:.4f} ({low:.4f} to {high:.4f})"


def share_with_interval(hits: NDArray[np.bool_]) -> dict[str, float]:
    """A share of tiles with its 95 % interval (Wilson, doi 10.1080/01621459.1927.10502953)."""
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, "wilson")
    return {"share": float(hits.mean()), "low": float(interval.low), "high": float(interval.high)}


def _intervals(probabilities: Probabilities, labels: Labels, resamples: int) -> dict[str, list[float] | None]:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(labels), (resamples, len(labels)))
    pairs = labels * NUM_CLASSES + probabilities.argmax(axis=1)
    counts = np.stack([np.bincount(pairs[row], minlength=NUM_CLASSES**2) for row in rows])
    found = from_confusion(counts.reshape(resamples, NUM_CLASSES, NUM_CLASSES))
    # One class only in a resample has no AUC.
    whole = [row for row in rows if len(np.unique(labels[row])) == NUM_CLASSES]
    found["auc"] = np.array([ranked_auc(probabilities[row], labels[row]) for row in whole])
    return {name: _interval(values) for name, values in found.items()}


def _interval(values: NDArray[np.float64]) -> list[float] | None:
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return None
    return [_round(value) for value in np.percentile(known, (2.5, 97.5))]


def _entry(value: float, interval: list[float] | None) -> dict[str, Any]:
    return {"value": _round(value), "interval": interval}


def _scores(columns: Any) -> dict[str, float]:
    return {name: _round(value) for name, value in zip(("precision", "recall", "f1"), columns, strict=True)}


def _round(value: float) -> float:
    return round(float(value), 4)
