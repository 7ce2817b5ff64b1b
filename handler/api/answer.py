"""Predictions and explanations to the JSON of an answer."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handler.api.options import ExplanationRequest, Options
from handler.api.render import EVIDENCE, Canvas, Picture, Rendering, jpeg, png, strength_of
from handler.api.verdict import Verdict
from handler.classes import CODES
from handler.classifier import Prediction
from handler.explain.explainer import Explanation
from handler.explain.types import Display


def prediction_json(
    model: Mapping[str, Any], prediction: Prediction, verdict: Verdict, options: Options
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
        **_reliability_json(prediction, verdict, options),
    }


def canonical_json(tile: NDArray[np.uint8]) -> dict[str, Any]:
    """The tile as the network sees it, uint8 `[S, S, 3]`."""
    return {"size": len(tile), "image": _base64(png(Image.fromarray(tile)))}


def _reliability_json(prediction: Prediction, verdict: Verdict, options: Options) -> dict[str, Any]:
    """The blocks named by `include`; null if the model is not calibrated. No set and no risk are stated for a tile
    that is unlike the training tiles."""
    blocks: dict[str, Any] = {}
    if "verdict" in options.include:
        blocks["verdict"] = verdict.to_json()
    if "confidence" in options.include:
        blocks["confidence"] = prediction.probability if prediction.calibrated else None
    if "prediction_set" in options.include:
        blocks["prediction_set"] = _prediction_set_json(prediction, options.coverage)
    if "ood" in options.include:
        blocks["ood_score"] = prediction.ood_score
        blocks["in_distribution"] = prediction.in_distribution
    if "risk" in options.include:
        blocks["risk"] = verdict.risk_json()
    return blocks


def _prediction_set_json(prediction: Prediction, coverage: str) -> dict[str, Any] | None:
    if not prediction.calibrated or prediction.in_distribution is False:
        return None
    codes = [CODES[class_id] for class_id in prediction.prediction_sets[coverage]]
    return {"coverage": float(coverage), "codes": codes}


def explanation_json(request: ExplanationRequest, explanation: Explanation, canvas: Canvas) -> dict[str, Any]:
    """One explanation with its pictures and its raw map, as far as they were asked."""
    answer = _subject_json(request, explanation.target)
    if explanation.cached is not None:
        answer["cached"] = explanation.cached
    answer |= {**explanation.details, "unit": explanation.unit}
    if request.images:
        answer |= _pictures_json(request, explanation, canvas)
    if request.raw:
        answer["attribution"] = _map_json(explanation.attribution, request.raw)
    return answer


def skipped_json(request: ExplanationRequest, target: int) -> dict[str, Any]:
    """An explanation for which the time budget was too short."""
    message = "The time budget ends before this explanation would be ready."
    return {**_subject_json(request, target), "skipped": {"code": "budget_exceeded", "message": message}}


def _subject_json(request: ExplanationRequest, target: int) -> dict[str, Any]:
    """What is explained."""
    subject: dict[str, Any] = {"method": request.method.name, "target": _class_json(target)}
    if request.contrast is not None:
        subject["contrast"] = _class_json(request.contrast)
    return subject


def _class_json(class_id: int) -> dict[str, Any]:
    return {"class_id": class_id, "code": CODES[class_id]}


def _pictures_json(request: ExplanationRequest, explanation: Explanation, canvas: Canvas) -> dict[str, Any]:
    values = explanation.attribution
    # The difference of two classes has evidence of both signs.
    display: Display = "signed" if request.contrast is not None else request.method.display
    picture = canvas.draw(strength_of(values, display), display, request.rendering)
    return {
        "rendering": _rendering_json(picture, display, request.rendering),
        "heatmap": _base64(png(picture.heatmap)),
        "overlay": _base64(jpeg(picture.overlay)),
    }


def _rendering_json(picture: Picture, display: Display, rendering: Rendering) -> dict[str, Any]:
    return {
        "shows": display,
        "stretch": _stretch(display, picture.colormap),
        "percentile": rendering.percentile,
        "range": [picture.low, picture.high],
        "colormap": picture.colormap,
        "alpha": rendering.alpha,
        "sigma": rendering.sigma,
    }


def _stretch(display: Display, colormap: str) -> str:
    if display == "signed":
        return "symmetric"
    return "zero-max" if colormap == EVIDENCE else "min-max"


def _map_json(values: NDArray[np.floating[Any]], dtype: str) -> dict[str, Any]:
    """The signed map. Its numbers times `scale` are in the map's unit; the scale makes half precision as fine as
    possible, so that small units do not underflow."""
    scale = float(np.abs(values).max()) or 1.0 if dtype == "float16" else 1.0
    data = np.ascontiguousarray(values / scale, "<f2" if dtype == "float16" else "<f4")
    return {
        "dtype": dtype,
        "shape": list(values.shape),
        "scale": scale,
        "range": [float(values.min()), float(values.max())],
        "data": _base64(data.tobytes()),
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
