"""The server-independent core: a list of requests to a list of responses, one for each, in order.

A batch may mix predictions and explanations with different methods and targets, and good requests with bad ones.
The network runs once for all; explanations run in groups that share a method and its parameters. A response
depends on its own request alone.
"""

import base64
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handler.engine import Forward, TorchEngine
from handler.errors import RequestError, error_json
from handler.explain.attribution import Attribution, Question
from handler.image import ImageLimits
from handler.model import Model
from handler.options import ExplanationRequest, Value
from handler.render import describe, draw, strength_of
from handler.request import RawRequest, TileRequest, parse_request
from handler.tissue import CODES, NUM_CLASSES, TISSUES

# A method with its parameters: what explanations have to share to be computed together.
Group = tuple[str, tuple[tuple[str, Value], ...]]
Pixels = NDArray[np.uint8]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Response:
    """An HTTP status and a JSON body."""

    status: int
    body: bytes


class Service:
    """Answers requests with one model on one device."""

    def __init__(self, model: Model, device: torch.device, limits: ImageLimits) -> None:
        self._model = model
        self._engine = TorchEngine(model, device)
        self._limits = limits

    def respond(self, requests: Sequence[RawRequest]) -> list[Response]:
        """Answer every request; never raises for a fault of one of them."""
        parsed = [self._parse(request) for request in requests]
        tiles = {index: item for index, item in enumerate(parsed) if isinstance(item, TileRequest)}
        responses = {index: item for index, item in enumerate(parsed) if isinstance(item, Response)}
        if tiles:
            responses |= dict(zip(tiles, self._answer(list(tiles.values())), strict=True))
        return [responses[index] for index in range(len(requests))]

    def _parse(self, request: RawRequest) -> TileRequest | Response:
        try:
            return parse_request(request, self._limits)
        except RequestError as error:
            return _json_response(error.status, error.to_json())
        except Exception:
            logger.exception("a request could not be parsed")
            return _internal_error()

    def _answer(self, tiles: list[TileRequest]) -> list[Response]:
        try:
            forward = self._engine.forward([tile.image for tile in tiles])
        except Exception:
            logger.exception("classification of %d tiles failed", len(tiles))
            return [_internal_error() for _ in tiles]
        explanations = self._explain(tiles, forward)
        logits = forward.logits.double().cpu()
        return [self._tile_response(logits[row], explanations[row]) for row in range(len(tiles))]

    def _tile_response(self, logits: Tensor, explanations: list[dict[str, Any] | None]) -> Response:
        if not logits.isfinite().all():
            logger.error("the network gave logits that are not finite")
            return _internal_error()
        if None in explanations:
            return _internal_error()
        probabilities = logits.softmax(dim=0).tolist()
        tissue = TISSUES[int(logits.argmax())]
        body: dict[str, Any] = {
            "model": self._model.identity(),
            "prediction": {
                "class_id": tissue.class_id,
                "code": tissue.code,
                "name": tissue.name,
                "probability": probabilities[tissue.class_id],
                "calibrated": False,
            },
            "probabilities": dict(zip(CODES, probabilities, strict=True)),
            "logits": logits.tolist(),
        }
        if explanations:
            body["explanations"] = explanations
        return _json_response(200, body)

    def _explain(self, tiles: list[TileRequest], forward: Forward) -> list[list[dict[str, Any] | None]]:
        """For each tile its explanations in the order asked; None stands for one that failed."""
        results: list[list[dict[str, Any] | None]] = [[None] * len(tile.explanations) for tile in tiles]
        for members in _groups(tiles).values():
            rows = [row for row, _ in members]
            wanted = [tiles[row].explanations[position] for row, position in members]
            images = [tiles[row].image for row in rows]
            for (row, position), answer in zip(
                members, self._explain_group(wanted, images, forward, rows), strict=True
            ):
                results[row][position] = answer
        return results

    def _explain_group(
        self, wanted: list[ExplanationRequest], images: list[Pixels], forward: Forward, rows: list[int]
    ) -> list[dict[str, Any] | None]:
        """Explanations that share a method and its parameters, computed together."""
        method = wanted[0].method
        targets = _targets(wanted, forward.logits[rows])
        question = Question(
            self._model.network,
            self._model.preprocessing,
            forward.inputs[rows],
            forward.features[rows],
            forward.logits[rows],
            _coefficients(targets, [item.contrast for item in wanted]).to(forward.logits.device),
        )
        try:
            attribution = method.explain(question, dict(wanted[0].parameters))
            return [
                self._explanation_json(item, targets[index], attribution, index, images[index])
                for index, item in enumerate(wanted)
            ]
        except Exception:
            logger.exception("%s of %d tiles failed", method.name, len(rows))
            return [None] * len(rows)

    def _explanation_json(
        self, wanted: ExplanationRequest, target: int, attribution: Attribution, index: int, image: Pixels
    ) -> dict[str, Any] | None:
        values = attribution.values[index].detach().float().cpu().numpy()
        if not np.isfinite(values).all():
            logger.error("%s gave values that are not finite", wanted.method.name)
            return None
        display = "signed" if wanted.contrast is not None and values.ndim == 2 else wanted.method.display
        strength = strength_of(values, display)
        picture = draw(strength, image, display, wanted.rendering, self._model.preprocessing.input_size)
        answer = {
            "method": wanted.method.name,
            "target": _class_json(target),
            **({"contrast": _class_json(wanted.contrast)} if wanted.contrast is not None else {}),
            **attribution.facts[index],
            "unit": attribution.unit,
            "rendering": describe(picture, display, wanted.rendering),
            "heatmap": picture.heatmap,
            "overlay": picture.overlay,
        }
        if wanted.raw:
            answer["attribution"] = _raw_json(values)
        return answer


def _groups(tiles: list[TileRequest]) -> dict[Group, list[tuple[int, int]]]:
    """(row, position) of every explanation, by method and parameters."""
    groups: dict[Group, list[tuple[int, int]]] = {}
    for row, tile in enumerate(tiles):
        for position, wanted in enumerate(tile.explanations):
            groups.setdefault((wanted.method.name, wanted.parameters), []).append((row, position))
    return groups


def _targets(wanted: list[ExplanationRequest], logits: Tensor) -> list[int]:
    predicted = logits.argmax(dim=1).tolist()
    return [top if item.target is None else item.target for item, top in zip(wanted, predicted, strict=True)]


def _coefficients(targets: list[int], contrasts: list[int | None]) -> Tensor:
    """For each tile +1 at its target and -1 at the class it is contrasted with, `[N, 9]`."""
    coefficients = torch.zeros(len(targets), NUM_CLASSES)
    for row, (target, contrast) in enumerate(zip(targets, contrasts, strict=True)):
        coefficients[row, target] += 1
        if contrast is not None:
            coefficients[row, contrast] -= 1
    return coefficients


def _class_json(class_id: int) -> dict[str, Any]:
    return {"class_id": class_id, "code": CODES[class_id]}


def _raw_json(values: NDArray[np.float32]) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode("ascii")
    return {"dtype": "float32", "shape": list(values.shape), "data": data}


def _json_response(status: int, body: dict[str, Any]) -> Response:
    return Response(status, json.dumps(body, separators=(",", ":"), allow_nan=False).encode())


def _internal_error() -> Response:
    return _json_response(
        500,
        error_json("internal_error", "The server failed to answer this request.", None),
    )
