"""Calibration of probabilities, and accuracy when the least sure tiles are not answered."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

Logits = NDArray[np.float64]
Probabilities = NDArray[np.float64]
Labels = NDArray[np.int64]

BINS = 15
TEMPERATURES = (0.05, 20.0)


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The temperature with the smallest negative log likelihood (Guo et al., arXiv 1706.04599)."""

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-scaled[np.arange(len(labels)), labels].mean())

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def apply_temperature(logits: Logits, temperature: float) -> Probabilities:
    """Probabilities `[N, 9]` of logits divided by a temperature."""
    scaled: Probabilities = softmax(logits / temperature, axis=1)
    return scaled


def reliability(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> list[dict[str, float]]:
    """For each bin of confidence with tiles: their number and share, mean confidence, and accuracy."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    places = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        {
            "tiles": int((places == place).sum()),
            "share": float((places == place).mean()),
            "confidence": float(confidence[places == place].mean()),
            "accuracy": float(right[places == place].mean()),
        }
        for place in np.unique(places)
    ]


def expected_calibration_error(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> float:
    """Mean gap between confidence and accuracy over even bins of confidence (Naeini et al., AAAI 2015)."""
    return sum(
        row["share"] * abs(row["confidence"] - row["accuracy"]) for row in reliability(probabilities, labels, bins)
    )


def risk_coverage(probabilities: Probabilities, labels: Labels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coverage and error when only the surest tiles are answered, one point for each number of tiles."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != labels)[order]
    counts = np.arange(1, len(labels) + 1)
    return counts / len(labels), np.cumsum(wrong) / counts
