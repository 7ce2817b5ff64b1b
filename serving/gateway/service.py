"""The model as the edge serves it by every protocol: who may ask and how often, the way to TorchServe, the record."""

import asyncio
import json
import logging
import math
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from serving.gateway.answer import Answer, Question, answer_each
from serving.gateway.exchange import Exchange
from serving.gateway.kserve import MODEL
from serving.gateway.payload import MAX_IMAGES
from serving.gateway.policy import RefusedError, require_token
from serving.gateway.priority import Priority
from serving.gateway.rate_limit import RateLimit
from serving.gateway.readiness import Readiness
from serving.gateway.recorder import Recorder
from serving.gateway.settings import Settings
from serving.gateway.upstream import Upstream

logger = logging.getLogger(__name__)


class Service:
    """An async context manager: it holds the connections to TorchServe.

    With a `token`, requests without it get 401. With the `manifest` of an export it knows the model and whether that
    answers its golden tile. `request_log` is the file that gets a line for each request.
    """

    def __init__(self, settings: Settings, token: str, manifest: Path | None, request_log: Path | None) -> None:
        self.upstream = Upstream(settings.inference_address, settings.metrics_address)
        self.priority = Priority()
        # For questions of regions: the priority of the clients that go first.
        self.yields_to: Priority | None = None
        self._token = token
        rate, burst = settings.edge_rate_limit, settings.edge_rate_burst
        self._limit = RateLimit(rate, burst) if rate else None
        self._recorder = Recorder(settings, request_log)
        self._manifest = manifest
        self._readiness = Readiness(manifest, self.upstream.predict) if manifest else None
        # All images of all batches together take half of TorchServe's queue, so that other requests find room in it.
        self._batched = asyncio.Semaphore(max(1, min(MAX_IMAGES, settings.job_queue_size // 2)))

    async def __aenter__(self) -> "Service":
        await self.upstream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.upstream.__aexit__(kind, error, traceback)
        await asyncio.to_thread(self._recorder.close)

    def admit(self, client: str, authorization: bytes) -> None:
        """Raise `RefusedError` if a client asks too often, or without the token."""
        if self._limit and (wait := self._limit.wait(client)):
            hint = {"Retry-After": str(math.ceil(wait))}
            raise RefusedError(429, "Too many requests from this address.", headers=hint)
        require_token(self._token, authorization)

    async def ask(self, question: Question, identity: str, model: str = MODEL, version: str = "") -> Answer:
        """The answer to one question; raises `RefusedError`."""
        ask = partial(self.upstream.infer, question.verb, model, version, question.payload, identity)
        if self.yields_to:
            async with self.yields_to.tile():
                return await ask()
        with self.priority.client():
            return await ask()

    async def ask_each(
        self, questions: Sequence[Question], identity: str, client: str, model: str = MODEL, version: str = ""
    ) -> list[Answer]:
        """The answers to several questions, each of which counts as a request of the client."""
        if self._limit:
            self._limit.charge(client, len(questions) - 1)

        async def ask(question: Question) -> Answer:
            async with self._batched:
                return await self.ask(question, identity, model, version)

        return await answer_each(questions, ask)

    def record(self, exchanges: Iterable[Exchange]) -> None:
        """Write requests down; raises `RefusedError` if that fails, because then no answer may be given."""
        identity = ""
        try:
            for exchange in exchanges:
                identity = exchange.request_id
                self._recorder.write(exchange)
        except OSError as error:
            logger.exception("request %s could not be written down", identity)
            message = "The audit trail cannot be written, so no answer is given."
            raise RefusedError(503, message, "audit_failed") from error

    async def reason(self) -> str | None:
        """Why the server is not ready; None if it is."""
        assert self._readiness is not None
        return await self._readiness.reason()

    def model_version(self) -> str:
        return str(self.described("model")["version"])

    def described(self, part: str) -> dict[str, Any]:
        """What the export says of its model. Read each time: an update replaces the manifest of a running server."""
        assert self._manifest is not None
        try:
            content: dict[str, Any] = json.loads(self._manifest.read_text())[part]
        except (OSError, ValueError, KeyError) as error:
            raise RefusedError(503, "manifest.json cannot be read; run `python -m export`.", "not_ready") from error
        return content
