"""The server-independent core: a list of requests to a list of responses, one for each, in order.

A batch may mix predictions and explanations with different methods, parameters and targets, and good requests with
bad ones. The network runs once for all; what explanations need beyond that runs in common batches (schedule.py). A
response depends on its own request alone.
"""

import base64
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from torch import Tensor

from handler.api import metrics
from handler.api.errors import RequestError, error_json
from handler.api.image import ImageLimits
from handler.api.options import Options
from handler.api.render import describe, draw, strength_of
from handler.api.request import RawRequest, TileRequest, parse_request
from handler.classes import CODES, DISCLAIMER, TISSUES, Tissue
from handler.explain.cache import AttributionCache
from handler.explain.explainer import Explainer, Job, Result
from handler.explain.types import BudgetExceededError, Display
from handler.model.calibration import Confidence
from handler.model.engine import Engine, Forward
from handler.model.network import embedding

logger = logging.getLogger(__name__)

# Images of a batch that are decoded at once.
DECODERS = 4


@dataclass(frozen=True)
class Response:
    """An HTTP status, a JSON body, `outcome` (ok, or the code of the error), and facts for a log: no image content."""

    status: int
    body: bytes
    outcome: str = "ok"
    facts: dict[str, Any] = field(default_factory=dict)


class Service:
    """Answers requests with one engine's model."""

    def __init__(self, engine: Engine, limits: ImageLimits, cache: AttributionCache | None = None) -> None:
        self._engine = engine
        self._model = engine.model
        self._explainer = Explainer(engine.model, cache)
        self._limits = limits
        self._decoders = ThreadPoolExecutor(DECODERS)

    def respond(self, requests: Sequence[RawRequest]) -> list[Response]:
        """Answer every request; never raises for a fault of one of them."""
        metrics.BATCH_SIZE.observe(len(requests))
        # Decoders let go of the interpreter's lock.
        parsed = list((self._decoders.map if len(requests) > 1 else map)(self._parse, requests))
        tiles = {index: item for index, item in enumerate(parsed) if isinstance(item, TileRequest)}
        responses = {index: item for index, item in enumerate(parsed) if isinstance(item, Response)}
        if tiles:
            responses |= dict(zip(tiles, self._answer(list(tiles.values())), strict=True))
        answers = [responses[index] for index in range(len(requests))]
        for request, answer in zip(requests, answers, strict=True):
            metrics.REQUESTS.labels(request.verb, answer.outcome).inc()
        return answers

    def _parse(self, request: RawRequest) -> TileRequest | Response:
        try:
            with metrics.STAGE.labels("decode").time():
                return parse_request(request, self._limits)
        except RequestError as error:
            return Response(error.status, orjson.dumps(error.to_json()), error.code)
        except Exception:
            logger.exception("a request could not be parsed")
            return _internal_error()

    def _answer(self, tiles: list[TileRequest]) -> list[Response]:
        start = time.monotonic()
        seconds: dict[str, float] = {}
        try:
            with metrics.stage("model", seconds):
                forward = self._engine.forward([tile.image for tile in tiles])
        except Exception:
            logger.exception("classification of %d tiles failed", len(tiles))
            return [_internal_error() for _ in tiles]
        logits = forward.logits.double().cpu()
        results: list[list[dict[str, Any] | None]] = [[None] * len(tile.options.explanations) for tile in tiles]
        for job, result in self._explain(_jobs(tiles, logits, start), forward, seconds):
            results[job.row][job.position] = self._explanation_json(job, result)
        distances = self._ood_scores(forward)
        responses = [self._tile_response(*row) for row in zip(tiles, logits, distances, results, strict=True)]
        return [
            replace(
                response,
                facts={**response.facts, "batch_seconds": {name: round(value, 4) for name, value in seconds.items()}},
            )
            for response in responses
        ]

    def _explain(self, jobs: list[Job], forward: Forward, seconds: dict[str, float]) -> list[tuple[Job, Result]]:
        if not jobs:
            return []
        with metrics.stage("explain", seconds):
            results = self._explainer.explain(jobs, forward)
        for job, result in zip(jobs, results, strict=True):
            _count(job, result)
        return list(zip(jobs, results, strict=True))

    def _ood_scores(self, forward: Forward) -> list[float | None]:
        confidence = self._model.confidence
        if confidence is None:
            return [None] * len(forward.logits)
        scores: list[float | None] = confidence.ood_scores(embedding(forward.features)).tolist()
        return scores

    def _tile_response(
        self,
        tile: TileRequest,
        logits: Tensor,
        ood_score: float | None,
        explanations: list[dict[str, Any] | None],
    ) -> Response:
        if not logits.isfinite().all():
            logger.error("the network gave logits that are not finite")
            return _internal_error()
        if None in explanations:
            return _internal_error()
        confidence = self._model.confidence
        temperature = confidence.temperature if confidence else 1.0
        probabilities = (logits / temperature).softmax(dim=0).tolist()
        tissue = TISSUES[int(logits.argmax())]
        body: dict[str, Any] = {
            "model": self._engine.identity(),
            "prediction": {
                "class_id": tissue.class_id,
                "code": tissue.code,
                "name": tissue.name,
                "probability": probabilities[tissue.class_id],
                "calibrated": confidence is not None,
            },
            "probabilities": dict(zip(CODES, probabilities, strict=True)),
            "logits": logits.tolist(),
            **trust_json(confidence, tile.options, tissue, probabilities, ood_score),
        }
        if explanations:
            body["explanations"] = explanations
        metrics.PREDICTED_CLASS.labels(tissue.code).inc()
        metrics.CONFIDENCE.observe(probabilities[tissue.class_id])
        if confidence and ood_score is not None:
            metrics.OOD_RATIO.observe(ood_score / confidence.ood_threshold)
        facts = {
            "image_sha256": tile.digest,
            "model_digest": self._model.digest,
            "engine": self._engine.backend,
            "code": tissue.code,
            "probability": probabilities[tissue.class_id],
            "ood_score": ood_score,
            "explanations": [wanted.method.name for wanted in tile.options.explanations],
        }
        return Response(200, orjson.dumps(body), facts=facts)

    def _explanation_json(self, job: Job, result: Result) -> dict[str, Any] | None:
        """One explanation of an answer; None for a fault of ours."""
        wanted, attribution = job.wanted, result.outcome
        answer: dict[str, Any] = {"method": wanted.method.name, "target": _class_json(job.target)}
        if wanted.contrast is not None:
            answer["contrast"] = _class_json(wanted.contrast)
        if isinstance(attribution, BudgetExceededError):
            message = "The time budget ends before this explanation would be ready."
            return {**answer, "skipped": {"code": "budget_exceeded", "message": message}}
        if isinstance(attribution, Exception):
            return None
        values = attribution.values.detach().float().cpu().numpy()
        if not np.isfinite(values).all():
            logger.error("%s gave values that are not finite", wanted.method.name)
            return None
        if result.cached is not None:
            answer["cached"] = result.cached
        answer |= {**attribution.facts, "unit": attribution.unit}
        if wanted.images:
            answer |= self._pictures(job, values)
        if wanted.raw:
            answer["attribution"] = _raw_json(values, wanted.raw)
        return answer

    def _pictures(self, job: Job, values: NDArray[np.float32]) -> dict[str, Any]:
        wanted = job.wanted
        display: Display = "signed" if wanted.contrast is not None and values.ndim == 2 else wanted.method.display
        strength = strength_of(values, display)
        with metrics.STAGE.labels("render").time():
            picture = draw(strength, job.image, display, wanted.rendering, self._model.preprocessing.input_size)
        rendering = describe(picture, display, wanted.rendering)
        return {"rendering": rendering, "heatmap": picture.heatmap, "overlay": picture.overlay}


def trust_json(
    confidence: Confidence | None, options: Options, tissue: Tissue, probabilities: list[float], ood_score: float | None
) -> dict[str, Any]:
    """What an answer says of its own worth, as far as it was asked; null where the model was not calibrated."""
    trust: dict[str, Any] = {}
    if "confidence" in options.include:
        trust["confidence"] = probabilities[tissue.class_id] if confidence else None
    if "prediction_set" in options.include:
        codes = None
        if confidence:
            codes = [CODES[class_id] for class_id in confidence.prediction_set(probabilities, options.coverage)]
        trust["prediction_set"] = codes and {"coverage": float(options.coverage), "codes": codes}
    if "ood" in options.include:
        trust["ood_score"] = ood_score
        trust["in_distribution"] = confidence and ood_score is not None and ood_score <= confidence.ood_threshold
    if "risk" in options.include:
        trust["risk"] = {"level": tissue.risk, "disclaimer": DISCLAIMER}
    return trust


def _jobs(tiles: list[TileRequest], logits: Tensor, start: float) -> list[Job]:
    predicted = logits.argmax(dim=1).tolist()
    return [
        Job(
            row,
            position,
            tile.image,
            wanted,
            predicted[row] if wanted.target is None else wanted.target,
            None if tile.options.budget is None else start + tile.options.budget,
        )
        for row, tile in enumerate(tiles)
        for position, wanted in enumerate(tile.options.explanations)
    ]


def _class_json(class_id: int) -> dict[str, Any]:
    return {"class_id": class_id, "code": CODES[class_id]}


def _raw_json(values: NDArray[np.float32], dtype: str) -> dict[str, Any]:
    """The signed map itself. Multiplied by `scale`, the numbers are in the map's unit: half precision is spent on
    the largest value, so that small units do not underflow."""
    scale = float(np.abs(values).max()) or 1.0 if dtype == "float16" else 1.0
    data = np.ascontiguousarray(values / scale, "<f2" if dtype == "float16" else "<f4")
    return {
        "dtype": dtype,
        "shape": list(values.shape),
        "scale": scale,
        "range": [float(values.min()), float(values.max())],
        "data": base64.b64encode(data.tobytes()).decode("ascii"),
    }


def _count(job: Job, result: Result) -> None:
    """One explanation for Prometheus."""
    method, outcome = job.wanted.method.name, result.outcome
    if result.cached is not None:
        metrics.CACHE.labels("hit" if result.cached else "miss").inc()
    if isinstance(outcome, BudgetExceededError):
        metrics.EXPLANATIONS.labels(method, "budget_exceeded").inc()
        return
    if isinstance(outcome, Exception):
        metrics.EXPLANATIONS.labels(method, "failed").inc()
        return
    metrics.EXPLANATIONS.labels(method, "ok").inc()
    if method == "integrated_gradients":
        metrics.EVALUATIONS.observe(outcome.facts["gradient_evaluations"])
        metrics.RESIDUAL.observe(outcome.facts["completeness_residual"])


def _internal_error() -> Response:
    error = error_json("internal_error", "The server failed to answer this request.", None)
    return Response(500, orjson.dumps(error), "internal_error")
