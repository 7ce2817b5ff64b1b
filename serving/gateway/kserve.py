"""KServe's two protocols, `/v1` (kserve_v1.py) and `/v2` (open_inference.py), for any front.

Both are views of predictions and explanations. One image that fails fails its request, because neither protocol has a
place for the error of a single image.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import orjson

from serving.gateway import kserve_v1
from serving.gateway.answer import Answer, Question
from serving.gateway.open_inference import metadata
from serving.gateway.open_inference_http import read_body, write_body
from serving.gateway.payload import query_options
from serving.gateway.policy import JSON, RefusedError, quotable

MODEL, SERVER = "pathmnist", "pathmnist-xai"
PREFIXES = ("/v1/", "/v2")
EXTENSIONS = ["binary_tensor_data"]

Body = Callable[[], Awaitable[bytes]]
Ask = Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]]


@dataclass(frozen=True)
class Call:
    """One request: its method, path, query string and the length of its JSON (`HEADER_LENGTH`), and how to go on.

    `read` gives the decompressed body, `ask` the answers to questions.
    """

    method: str
    path: str
    query: bytes
    header_length: str
    read: Body
    ask: Ask


@dataclass(frozen=True)
class Reply:
    """The body and the headers of a successful response."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": JSON})


class KServe:
    """Answers both protocols for one model.

    `version` gives the model's version, `reason` why the server is not ready, or None if it is; both may raise
    `RefusedError`.
    """

    def __init__(self, version: Callable[[], str], reason: Callable[[], Awaitable[str | None]]) -> None:
        self._version = version
        self._reason = reason
        model = f"/v2/models/{MODEL}(?:/versions/(?P<version>[^/]+))?"
        self._routes = {
            "/v1/models": ("GET", self._models),
            f"/v1/models/{MODEL}": ("GET", self._status),
            f"/v1/models/{MODEL}:(?P<verb>predict|explain)": ("POST", self._predict),
            "/v2": ("GET", self._server),
            "/v2/health/live": ("GET", self._live),
            "/v2/health/ready": ("GET", self._ready),
            model: ("GET", self._model),
            f"{model}/ready": ("GET", self._ready),
            f"{model}/infer": ("POST", self._infer),
        }

    async def respond(self, call: Call) -> Reply:
        """The response; raises `RefusedError`."""
        for pattern, (method, handler) in self._routes.items():
            if match := re.fullmatch(pattern, call.path):
                if call.method != method:
                    message = f"{call.method} is not allowed here; see the header Allow."
                    raise RefusedError(405, message, headers={"Allow": method})
                return await handler(call, match.groupdict())
        raise RefusedError(404, "There is nothing at this address.")

    async def _models(self, call: Call, _: Mapping[str, str]) -> Reply:
        return Reply(orjson.dumps({"models": [MODEL]}))

    async def _status(self, call: Call, _: Mapping[str, str]) -> Reply:
        return Reply(orjson.dumps({"name": MODEL, "ready": await self._reason() is None}))

    async def _predict(self, call: Call, parts: Mapping[str, str]) -> Reply:
        verb = kserve_v1.VERBS[parts["verb"]]
        body, options = await call.read(), query_options(call.query)
        # Large bodies would keep other requests waiting.
        questions = await asyncio.to_thread(kserve_v1.read_instances, verb, body, options)
        answers = await call.ask(questions)
        require_all(answers, len(questions))
        return Reply(kserve_v1.write_predictions(verb, answers))

    async def _server(self, call: Call, _: Mapping[str, str]) -> Reply:
        return Reply(orjson.dumps({"name": SERVER, "version": self._version(), "extensions": EXTENSIONS}))

    async def _live(self, call: Call, _: Mapping[str, str]) -> Reply:
        return Reply(orjson.dumps({"live": True}))

    async def _ready(self, call: Call, parts: Mapping[str, str]) -> Reply:
        self._require_version(parts)
        if reason := await self._reason():
            raise RefusedError(503, reason, "not_ready")
        return Reply(orjson.dumps({"name": MODEL, "ready": True}))

    async def _model(self, call: Call, parts: Mapping[str, str]) -> Reply:
        return Reply(orjson.dumps(metadata(MODEL, self._require_version(parts))))

    async def _infer(self, call: Call, parts: Mapping[str, str]) -> Reply:
        version = self._require_version(parts)
        inference = await asyncio.to_thread(read_body, await call.read(), call.header_length)
        answers = await call.ask(inference.questions())
        require_all(answers, len(inference.images))
        bodies = [answer.body for answer in answers]
        return Reply(*await asyncio.to_thread(write_body, inference, MODEL, version, bodies))

    def _require_version(self, parts: Mapping[str, str | None]) -> str:
        version = self._version()
        require_model(MODEL, parts.get("version") or "", version)
        return version


def require_model(name: str, version: str, served: str) -> None:
    """Raise `RefusedError` unless a request asks for the model, in the version that is served or in none."""
    if name != MODEL or version not in ("", served):
        raise RefusedError(404, "There is no such model or version.")


def error_body(path: str, error: RefusedError) -> bytes:
    """An error in the form of its path: the protocols' with the code first, or the common one."""
    if not path.startswith(PREFIXES):
        return error.body
    return orjson.dumps({"error": quotable(f"{error.code}: {error}")})


def verb_of(path: str) -> str:
    """What a path asks of the model, before the request is read; "" if it does not reach it."""
    if match := re.fullmatch(r"/v1/models/[^/]+:(predict|explain)", path):
        return kserve_v1.VERBS[match[1]]
    return "predictions" if re.fullmatch(r"/v2/models/.+/infer", path) else ""


def require_all(answers: Sequence[Answer], images: int) -> None:
    """Raise the first error among the answers, with the number of its image."""
    for position, answer in enumerate(answers):
        if answer.status != HTTPStatus.OK:
            error = orjson.loads(answer.body)["error"]
            image = position * images // len(answers)
            raise RefusedError(answer.status, f"image {image}: {error['message']}", error["code"], error["field"])
