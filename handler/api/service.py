"""Answers a list of requests with a list of responses, one for each, in order, whatever server they come from.

A batch may mix predictions and explanations with different methods, parameters and targets, and good requests with
bad ones. The network runs once for all; what explanations need beyond that runs in common batches
(handler/explain/batching.py). A response depends on its own request alone, and so does every failure (exchange.py).
"""

import math
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import Any

import orjson

from handler.api import metrics
from handler.api.answer import canonical_json, explanation_json, skipped_json
from handler.api.errors import RequestError
from handler.api.exchange import Exchange, Response
from handler.api.image import ImageLimits
from handler.api.options import ExplanationRequest
from handler.api.prediction import picture_json, prediction_json
from handler.api.render import Canvas
from handler.api.request import RawRequest, TileRequest, parse_request
from handler.api.verdict import verdict_of
from handler.classifier import Classifier
from handler.explain.explainer import Explanation, Job
from handler.explain.types import BudgetExceededError
from handler.isolation import together_or_alone
from handler.model.engine import Forward
from handler.model.fit import Fit
from handler.model.network import embedding
from handler.model.prediction import Prediction

# Images of a batch that are decoded at the same time.
DECODERS = 4
# For the explanations of a batch. TorchServe kills a worker with its whole batch after 300 (model-config.yaml).
EXPLAIN_SECONDS = 240.0
# Drawn for one request, in all its pictures: 45 of 400 x 400, or 7 of the largest size.
MAX_DRAWN_PIXELS = 7 * 1024**2


class Service:
    """Answers requests with a classifier. Images must keep the limits; explanations end after `explain_seconds`."""

    def __init__(self, classifier: Classifier, limits: ImageLimits, explain_seconds: float = EXPLAIN_SECONDS) -> None:
        self._classifier = classifier
        self._limits = limits
        self._explain_seconds = explain_seconds
        self._decoders = ThreadPoolExecutor(DECODERS)

    def respond(self, requests: Sequence[RawRequest]) -> list[Response]:
        """Answer every request. Never raises because of one of them."""
        batch = [Exchange(request) for request in requests]
        seconds: dict[str, float] = {}
        metrics.BATCH_SIZE.observe(len(batch))
        self._decode(batch)
        if unanswered := [exchange for exchange in batch if exchange.unanswered]:
            with metrics.stage("model", seconds):
                together_or_alone(unanswered, self._classify, Exchange.fail)
        if explained := [exchange for exchange in batch if exchange.unanswered and exchange.jobs]:
            with metrics.stage("explain", seconds):
                together_or_alone(explained, self._explain, Exchange.fail)
        for exchange in batch:
            if exchange.unanswered:
                exchange.attempt(self._answer)
            exchange.attempt(partial(self._log, len(batch), seconds))
            metrics.REQUESTS.labels(exchange.request.verb, exchange.outcome).inc()
        return [exchange.response() for exchange in batch]

    def _decode(self, batch: list[Exchange]) -> None:
        """Read the options and the image of every request; several at once, because decoders release the GIL."""
        run = self._decoders.map if len(batch) > 1 else map
        deque(run(lambda exchange: exchange.attempt(self._parse), batch), maxlen=0)

    def _parse(self, exchange: Exchange) -> None:
        with metrics.STAGE.labels("decode").time():
            exchange.tile = parse_request(exchange.request, self._limits)
        _require_few_pixels(exchange.tile)

    def _classify(self, exchanges: Sequence[Exchange]) -> None:
        images = [exchange.tile.image for exchange in exchanges]
        forward = self._classifier.engine.forward(images)
        predictions = self._classifier.predictions(forward)
        fits = self._classifier.fits(images, predictions)
        for exchange, row, prediction, fit in zip(exchanges, forward.split(), predictions, fits, strict=True):
            exchange.prediction, exchange.fit = prediction, fit
            if "embedding" in exchange.tile.options.include:
                exchange.embedding = embedding(row.features)[0].cpu().numpy()
            exchange.jobs = [self._job(exchange, row, request) for request in exchange.tile.options.explanations]

    def _job(self, exchange: Exchange, forward: Forward, request: ExplanationRequest) -> Job:
        target = exchange.prediction.tissue.class_id if request.target is None else request.target
        seconds = min(exchange.tile.options.budget or math.inf, self._explain_seconds)
        return Job(
            forward,
            request.method,
            dict(request.parameters),
            target,
            request.contrast,
            exchange.received + seconds,
            exchange.tile.image,
        )

    def _explain(self, exchanges: Sequence[Exchange]) -> None:
        self._classifier.run([job for exchange in exchanges for job in exchange.jobs])

    def _answer(self, exchange: Exchange) -> None:
        prediction, tile = exchange.prediction, exchange.tile
        verdict = verdict_of(prediction, self._classifier.model.confidence)
        include, coverage = tile.options.include, tile.options.coverage
        body = prediction_json(self._classifier.engine.identity(), prediction, verdict, include, coverage)
        body |= picture_json(tile.field, exchange.fit, include)
        if "canonical" in include:
            body["canonical"] = canonical_json(self._classifier.canonical_tile(tile.image))
        if exchange.embedding is not None:
            body["embedding"] = exchange.embedding.tolist()
        if tile.notes:
            body["notes"] = tile.notes
        if exchange.jobs:
            canvas = Canvas(tile.image, self._classifier.model.preprocessing.input_size)
            pairs = zip(tile.options.explanations, exchange.jobs, strict=True)
            body["explanations"] = [_explanation_json(request, job, canvas) for request, job in pairs]
        exchange.answer(HTTPStatus.OK, orjson.dumps(body))
        _count_prediction(prediction)
        _count_fit(exchange.fit)

    def _log(self, batch_size: int, seconds: dict[str, float], exchange: Exchange) -> None:
        """The log's entry for a request, assembled here and nowhere else."""
        entry: dict[str, Any] = {"outcome": exchange.outcome, "batch_size": batch_size}
        if exchange.status == HTTPStatus.OK:
            entry |= {
                "image_sha256": exchange.tile.digest,
                "model_digest": self._classifier.model.digest,
                "engine": self._classifier.engine.backend,
                "code": exchange.prediction.tissue.code,
                "probability": exchange.prediction.probability,
                "ood_score": exchange.prediction.ood_score,
                "fit": exchange.fit.verdict,
                "fit_reasons": exchange.fit.reasons,
                "mpp": exchange.tile.field.mpp,
                "explanations": [job.method.name for job in exchange.jobs],
            }
        entry["batch_seconds"] = {name: round(value, 4) for name, value in seconds.items()}
        exchange.log = orjson.dumps(entry).decode()


def _require_few_pixels(tile: TileRequest) -> None:
    """Raise `RequestError` if the pictures asked for would hold a worker, and its other requests, for seconds."""
    drawn = sum(request.rendering.size**2 for request in tile.options.explanations if request.images)
    if drawn > MAX_DRAWN_PIXELS:
        message = f"The pictures would have {drawn} pixels; at most {MAX_DRAWN_PIXELS} are drawn for one request."
        raise RequestError("parameter_invalid", message, "size")


def _explanation_json(request: ExplanationRequest, job: Job, canvas: Canvas) -> dict[str, Any]:
    """One explanation of an answer. Raises what kept the job from a map, unless it was the time budget."""
    try:
        explanation = job.result()
    except BudgetExceededError:
        metrics.EXPLANATIONS.labels(job.method.name, "budget_exceeded").inc()
        return skipped_json(request, job.target)
    except Exception:
        metrics.EXPLANATIONS.labels(job.method.name, "failed").inc()
        raise
    _count_explanation(explanation)
    with metrics.STAGE.labels("render").time():
        return explanation_json(request, explanation, canvas)


def _count_prediction(prediction: Prediction) -> None:
    metrics.PREDICTED_CLASS.labels(prediction.tissue.code).inc()
    metrics.CONFIDENCE.observe(prediction.probability)
    if prediction.ood_score is not None and prediction.ood_threshold is not None:
        metrics.OOD_RATIO.observe(prediction.ood_score / prediction.ood_threshold)


def _count_fit(fit: Fit) -> None:
    metrics.FOCUS.observe(fit.quality.focus)
    if fit.verdict:
        metrics.FIT.labels(fit.verdict).inc()
    for reason in fit.reasons:
        metrics.FIT_REASONS.labels(reason).inc()


def _count_explanation(explanation: Explanation) -> None:
    metrics.EXPLANATIONS.labels(explanation.method, "ok").inc()
    if explanation.cached is not None:
        metrics.CACHE.labels("hit" if explanation.cached else "miss").inc()
    if explanation.method == "integrated_gradients":
        metrics.EVALUATIONS.observe(explanation.details["gradient_evaluations"])
        metrics.RESIDUAL.observe(explanation.details["completeness_residual"])
