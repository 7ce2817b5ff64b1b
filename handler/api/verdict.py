"""One verdict on a tile, from its probabilities, its prediction set, and its likeness to the training tiles.

It is computed once, here, so that no client has to reconcile four figures that may contradict each other.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from handler.classes import CODES, DISCLAIMER, TUMOUR_RELATED
from handler.model.prediction import DecisionRules, Prediction, ReliabilityBin

State = Literal["unreliable", "uncertain", "confident"]

# The smallest probability of a single class with which a verdict is confident.
CONFIDENT_FROM = 0.7


@dataclass(frozen=True)
class Verdict:
    """What an answer says about a tile as a whole.

    `state` is `unreliable` if the tile is unlike the training tiles, `uncertain` if more than one class is possible or
    the model is not calibrated, otherwise `confident`. `classes` are the codes that the verdict names, most probable
    first; an unreliable verdict names none.

    `tumour_share` is the probability of tumour epithelium and stroma together, in [0, 1]. `tumour_related` is true from
    `tumour_threshold` on, in every state; below it is false, or None if the verdict is unreliable or there is no
    threshold. `test_tiles` are those of the test split with a confidence like this one, None if they were not counted.
    """

    state: State
    classes: tuple[str, ...]
    tumour_share: float
    tumour_related: bool | None
    tumour_threshold: float | None
    test_tiles: ReliabilityBin | None

    def to_json(self) -> dict[str, Any]:
        """The answer's `verdict`; `share_right` is the share of `test_tiles` whose class was right."""
        bin_ = self.test_tiles
        return {**asdict(self), "share_right": bin_.right / bin_.tiles if bin_ else None}

    def risk_json(self) -> dict[str, Any] | None:
        """The answer's `risk`, from the tumour share alone. A tile without tumour says nothing about its slide, so the
        level is then unknown, never low; an unreliable verdict and a model without a threshold have no risk."""
        if self.state == "unreliable" or self.tumour_related is None:
            return None
        return {"level": "high" if self.tumour_related else "unknown", "disclaimer": DISCLAIMER}


def verdict_of(prediction: Prediction, rules: DecisionRules | None) -> Verdict:
    """The verdict on one prediction by a calibration's rules, if there is one."""
    probabilities = dict(zip(CODES, prediction.probabilities.tolist(), strict=True))
    tumour_share = min(1.0, sum(probabilities[code] for code in TUMOUR_RELATED))
    threshold = rules.tumour_threshold if rules else None
    state, classes = _state(prediction), _possible_classes(prediction)
    related = None if threshold is None else tumour_share >= threshold
    if state == "unreliable":
        classes, related = (), related or None
    test_tiles = rules.reliability_at(prediction.probability) if rules else None
    return Verdict(state, classes, tumour_share, related, threshold, test_tiles)


def _state(prediction: Prediction) -> State:
    if prediction.in_distribution is False:
        return "unreliable"
    sure = prediction.calibrated and len(_possible_classes(prediction)) == 1
    return "confident" if sure else "uncertain"


def _possible_classes(prediction: Prediction) -> tuple[str, ...]:
    """The largest prediction set; the two most probable classes if it has one class of low probability."""
    sets = prediction.prediction_sets
    classes = list(sets[max(sets)]) if sets else [prediction.tissue.class_id]
    if len(classes) == 1 and prediction.probability < CONFIDENT_FROM:
        classes = prediction.probabilities.argsort()[::-1][:2].tolist()
    return tuple(CODES[class_id] for class_id in classes)
