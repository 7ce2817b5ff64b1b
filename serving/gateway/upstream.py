"""TorchServe, as the edge asks it.

TorchServe 0.12 drops the query string of `/predictions/...` and `/explanations/...`; its older path
`/{model}/predict?...` passes it to the handler. Explanations go to the same archive under the name `{model}-explain`,
with the header `explain` that TorchServe itself would set.
"""

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector
from yarl import URL

from serving.gateway.answer import Answer
from serving.gateway.payload import OCTETS, Payload
from serving.gateway.policy import REQUEST_ID, RefusedError
from serving.gateway.readiness import NotReadyError

# What config.properties adds to a model's name for the workers that explain.
EXPLAIN_POOL = "-explain"
# Facts about an answer for the log, from the handler (handler/pathmnist_handler.py).
FACTS_HEADER = "X-Facts"
# TorchServe's own messages name Java classes and its workers.
MESSAGES = {
    400: "The model server could not read the request.",
    404: "There is no such model or version.",
    405: "The model server does not take this method.",
    413: "The request is too large.",
    503: "The queue is full.",
    504: "The model server gave no answer in time.",
    507: "The worker that computed this answer ended.",
}

logger = logging.getLogger(__name__)


class Upstream:
    """A TorchServe. An async context manager: it holds the connections."""

    def __init__(self, inference: str, metrics: str) -> None:
        self._inference = inference
        self._metrics = metrics

    async def __aenter__(self) -> "Upstream":
        # TorchServe has its own queue limit and timeouts; a second set here would only disagree with them.
        self._session = ClientSession(
            connector=TCPConnector(limit=0), timeout=ClientTimeout(total=None), auto_decompress=False
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def infer(self, verb: str, model: str, version: str, payload: Payload, identity: str) -> Answer:
        """The handler's answer, be it an error; raises `RefusedError` for TorchServe's own errors."""
        headers = {"Content-Type": OCTETS, REQUEST_ID: identity}
        if verb == "explanations":
            headers["explain"] = "True"
            model += EXPLAIN_POOL
        path = "/".join(filter(None, (model, version, "predict")))
        return await self._ask("POST", f"{self._inference}/{path}?{payload.query}", headers, payload.body)

    async def ping(self) -> Answer:
        return await self._ask("GET", f"{self._inference}/ping")

    async def metrics(self) -> Answer:
        return await self._ask("GET", f"{self._metrics}/metrics")

    async def predict(self, image: bytes) -> dict[str, Any]:
        """The answer to an image file; raises `NotReadyError` if there is none."""
        try:
            answer = await self.infer("predictions", "pathmnist", "", Payload(image, {}), "ready")
        except RefusedError as error:
            raise NotReadyError(f"The model server cannot predict: {error}") from error
        if answer.status != HTTPStatus.OK:
            raise NotReadyError(f"The model answers with status {answer.status}.")
        content: dict[str, Any] = json.loads(answer.body)
        return content

    async def _ask(
        self, method: str, address: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        url = URL(address, encoded=True)
        try:
            async with self._session.request(method, url, data=body, headers=headers) as response:
                return await _read(response)
        except ClientError as error:
            raise RefusedError(503, "The model server cannot be reached.", "unavailable") from error


async def _read(response: ClientResponse) -> Answer:
    body = await response.read()
    if response.status >= 400 and not body.startswith(b'{"error":'):
        logger.warning("TorchServe answers %d: %s", response.status, body[:400].decode(errors="replace"))
        raise RefusedError(response.status, MESSAGES.get(response.status, "The model server failed to answer."))
    facts = json.loads(response.headers.get(FACTS_HEADER, "{}"))
    return Answer(response.status, response.headers.get("Content-Type", OCTETS), body, facts)
