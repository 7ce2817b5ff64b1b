"""From logits to a prediction: calibrated probabilities, prediction sets, and likeness to the training tiles.

NumPy alone, so that the ONNX files give the server's answers without PyTorch (`export.predict`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handler.classes import TISSUES, Tissue


@dataclass(frozen=True)
class ReliabilityBin:
    """Test tiles whose predicted class has a probability from `low` to below `high`, or to 1 if `high` is 1: how many
    there are, and for how many the class is right."""

    low: float
    high: float
    tiles: int
    right: int


@dataclass(frozen=True)
class FitLimits:
    """From where on a figure of a tile's picture is a reason for doubt (handler/model/fit.py).

    `focus`, `peak`, `saturation` and `tissue` are lower limits, the others upper ones. `ood_ratio` is for the
    out-of-distribution score as a multiple of its threshold.
    """

    focus: float
    noise: float
    blocks: float
    chroma: float
    clipped: float
    peak: float
    saturation: float
    tissue: float
    ood_ratio: float


@dataclass(frozen=True, kw_only=True)
class DecisionRules:
    """The numbers of a calibration that turn logits and a distance into an answer.

    `temperature` divides the logits (Guo et al., arXiv 1706.04599). `thresholds` give, for a coverage such as `0.9`,
    the smallest calibrated probability with which a class belongs to the prediction set (LAC: Sadinle et al., arXiv
    1609.00451). `ood_threshold` is the Mahalanobis distance that 95 % of real tiles stay under. `calibrated_on` says in
    words which tiles were used.

    `tumour_threshold` is the probability of tumour epithelium and stroma together from which a tile is called
    tumour-related; `reliability` counts the test tiles by confidence (evaluation/verdict.py). `fit` are the limits of a
    picture that is fit to be judged (evaluation/fit.py). All three may be missing.
    """

    temperature: float
    thresholds: Mapping[str, float]
    ood_threshold: float
    calibrated_on: str
    tumour_threshold: float | None = None
    reliability: tuple[ReliabilityBin, ...] = ()
    fit: FitLimits | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DecisionRules":
        """Read what `rules_json` wrote; unknown or missing keys raise `TypeError`."""
        reliability = tuple(ReliabilityBin(**item) for item in values.get("reliability", ()))
        fit = FitLimits(**values["fit"]) if values.get("fit") else None
        return cls(**{**values, "reliability": reliability, "fit": fit})

    def rules_json(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature,
            "thresholds": dict(self.thresholds),
            "ood_threshold": self.ood_threshold,
            "calibrated_on": self.calibrated_on,
            "tumour_threshold": self.tumour_threshold,
            "reliability": [asdict(item) for item in self.reliability],
            "fit": asdict(self.fit) if self.fit else None,
        }

    def prediction_set(self, probabilities: list[float], coverage: str) -> list[int]:
        """Classes by falling probability; never empty."""
        order = sorted(range(len(probabilities)), key=lambda class_id: -probabilities[class_id])
        threshold = self.thresholds[coverage]
        return order[:1] + [class_id for class_id in order[1:] if probabilities[class_id] >= threshold]

    def reliability_at(self, probability: float) -> ReliabilityBin | None:
        """The test tiles with a confidence like this one; None if there are none."""
        bins = (item for item in self.reliability if item.tiles and item.low <= probability)
        return next((item for item in bins if probability < item.high or item.high == 1), None)


@dataclass(frozen=True)
class Prediction:
    """The classification of one image.

    `logits` and `probabilities` are float64 `[9]`, in the order of `handler.classes`. `probabilities` sum to 1; if
    `calibrated`, a temperature makes them match observed frequencies (Guo et al., arXiv 1706.04599).

    What needs a calibrated model is None or empty without one. `ood_score` is the squared Mahalanobis distance to the
    nearest class of the training tiles (Lee et al., arXiv 1807.03888), `ood_threshold` the one that 95 % of real tiles
    stay under. `prediction_sets` give, for a coverage such as "0.9", class ids by falling probability (Sadinle et al.,
    arXiv 1609.00451).
    """

    logits: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    calibrated: bool
    ood_score: float | None
    ood_threshold: float | None
    prediction_sets: Mapping[str, Sequence[int]]

    @property
    def tissue(self) -> Tissue:
        """The predicted class."""
        return TISSUES[int(self.logits.argmax())]

    @property
    def probability(self) -> float:
        """Of the predicted class, in [0, 1]."""
        return float(self.probabilities[self.tissue.class_id])

    @property
    def in_distribution(self) -> bool | None:
        """Whether the image is like the training tiles."""
        if self.ood_score is None or self.ood_threshold is None:
            return None
        return self.ood_score <= self.ood_threshold


def prediction_of(
    logits: NDArray[np.floating[Any]], ood_score: float | None, rules: DecisionRules | None
) -> Prediction:
    """The prediction from the logits `[9]` of one image; without `rules` it is not calibrated.

    Raises `ArithmeticError` if a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise ArithmeticError("the network gave logits that are not finite")
    exact = logits.astype(np.float64)
    if rules is None:
        return Prediction(exact, _softmax(exact), False, None, None, {})
    probabilities = _softmax(exact / rules.temperature)
    sets = {coverage: rules.prediction_set(probabilities.tolist(), coverage) for coverage in rules.thresholds}
    return Prediction(exact, probabilities, True, ood_score, rules.ood_threshold, sets)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()
