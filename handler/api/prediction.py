"""A prediction to the JSON of an answer.

Like all that it imports, it needs no PyTorch.
"""

from collections.abc import Mapping, Set
from typing import Any

from handler.api.field import Field
from handler.api.verdict import Verdict
from handler.classes import CODES
from handler.model.fit import Fit
from handler.model.prediction import Prediction

# What an answer says about its reliability, beside the probabilities.
TRUST = ("verdict", "confidence", "prediction_set", "ood", "risk", "fit", "field")


def prediction_json(
    model: Mapping[str, Any], prediction: Prediction, verdict: Verdict, include: Set[str], coverage: str
) -> dict[str, Any]:
    """The answer's prediction, and as much on its reliability as was asked."""
    tissue = prediction.tissue
    return {
        "model": model,
        "prediction": {
            "class_id": tissue.class_id,
            "code": tissue.code,
            "name": tissue.name,
            "probability": prediction.probability,
            "calibrated": prediction.calibrated,
        },
        "probabilities": dict(zip(CODES, prediction.probabilities.tolist(), strict=True)),
        "logits": prediction.logits.tolist(),
        **_reliability_json(prediction, verdict, include, coverage),
    }


def picture_json(field: Field, fit: Fit, include: Set[str]) -> dict[str, Any]:
    """What the answer says about the picture, as much as was asked: its field of view, and its fitness."""
    blocks = {"field": field.to_json(), "fit": fit.to_json()}
    return {name: block for name, block in blocks.items() if name in include}


def _reliability_json(prediction: Prediction, verdict: Verdict, include: Set[str], coverage: str) -> dict[str, Any]:
    """The blocks named by `include`; null if the model is not calibrated. No set and no risk are stated for a tile
    that is unlike the training tiles."""
    blocks: dict[str, Any] = {}
    if "verdict" in include:
        blocks["verdict"] = verdict.to_json()
    if "confidence" in include:
        blocks["confidence"] = prediction.probability if prediction.calibrated else None
    if "prediction_set" in include:
        blocks["prediction_set"] = _prediction_set_json(prediction, coverage)
    if "ood" in include:
        blocks["ood_score"] = prediction.ood_score
        blocks["in_distribution"] = prediction.in_distribution
    if "risk" in include:
        blocks["risk"] = verdict.risk_json()
    return blocks


def _prediction_set_json(prediction: Prediction, coverage: str) -> dict[str, Any] | None:
    if not prediction.calibrated or prediction.in_distribution is False:
        return None
    codes = [CODES[class_id] for class_id in prediction.prediction_sets[coverage]]
    return {"coverage": float(coverage), "codes": codes}
