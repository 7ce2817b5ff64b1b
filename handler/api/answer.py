"""Explanations, and the tile that the network sees, to the JSON of an answer."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handler.api.attribution import base64_text, map_json, subject_json
from handler.api.options import ExplanationRequest
from handler.api.render import EVIDENCE, Canvas, Picture, Rendering, jpeg, png, strength_of
from handler.explain.display import Display
from handler.explain.explainer import Explanation


def canonical_json(tile: NDArray[np.uint8]) -> dict[str, Any]:
    """The tile as the network sees it, uint8 `[S, S, 3]`."""
    return {"size": len(tile), "image": base64_text(png(Image.fromarray(tile)))}


def explanation_json(request: ExplanationRequest, explanation: Explanation, canvas: Canvas) -> dict[str, Any]:
    """One explanation with its pictures and its raw map, as far as they were asked."""
    answer = subject_json(request.method.name, explanation.target, request.contrast)
    if explanation.cached is not None:
        answer["cached"] = explanation.cached
    answer |= {**explanation.details, "unit": explanation.unit}
    if request.images:
        answer |= _pictures_json(request, explanation, canvas)
    if request.raw:
        answer["attribution"] = map_json(explanation.attribution, request.raw)
    return answer


def skipped_json(request: ExplanationRequest, target: int) -> dict[str, Any]:
    """An explanation for which the time budget was too short."""
    message = "The time budget ends before this explanation would be ready."
    return {
        **subject_json(request.method.name, target, request.contrast),
        "skipped": {"code": "budget_exceeded", "message": message},
    }


def _pictures_json(request: ExplanationRequest, explanation: Explanation, canvas: Canvas) -> dict[str, Any]:
    values = explanation.attribution
    # The difference of two classes has evidence of both signs.
    display: Display = "signed" if request.contrast is not None else request.method.display
    picture = canvas.draw(strength_of(values, display), display, request.rendering)
    return {
        "rendering": _rendering_json(picture, display, request.rendering),
        "heatmap": base64_text(png(picture.heatmap)),
        "overlay": base64_text(jpeg(picture.overlay)),
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
