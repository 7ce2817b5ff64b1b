"""The addresses of KServe's two protocols, `/v1` (kserve_v1.py) and `/v2` (open_inference.py).

Both are views of predictions and explanations. One image that fails fails its request, because neither protocol has a
place for the error of a single image.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from pathlib import Path

import orjson
from aiohttp import web

from serving.gateway import kserve_v1
from serving.gateway.answer import Answer, Question
from serving.gateway.open_inference import HEADER_LENGTH, metadata, read_inference, write_answers
from serving.gateway.payload import query_options
from serving.gateway.policy import JSON, RefusedError
from serving.gateway.readiness import Readiness

MODEL = "pathmnist"
PREFIXES = ("/v1/", "/v2")

Body = Callable[[web.Request], Awaitable[bytes]]
Ask = Callable[[web.Request, Sequence[Question]], Awaitable[Sequence[Answer]]]


class KServe:
    """Answers both protocols for one model, whose version is in the `manifest` of its export.

    `read` gives the body of a request, `ask` the answers to questions.
    """

    def __init__(self, read: Body, ask: Ask, manifest: Path, readiness: Readiness) -> None:
        self._read = read
        self._ask = ask
        self._manifest = manifest
        self._readiness = readiness

    def routes(self) -> list[web.RouteDef]:
        """The addresses, for `Application.add_routes`."""
        routes = [
            web.get("/v1/models", self._models),
            web.get(f"/v1/models/{MODEL}", self._status),
            web.post(f"/v1/models/{MODEL}:{{verb:predict|explain}}", self._predict),
            web.get("/v2", self._server),
            web.get("/v2/health/live", self._live),
            web.get("/v2/health/ready", self._ready),
        ]
        for path in (f"/v2/models/{MODEL}", f"/v2/models/{MODEL}/versions/{{version}}"):
            routes += [
                web.get(path, self._model),
                web.get(f"{path}/ready", self._ready),
                web.post(f"{path}/infer", self._infer),
            ]
        return routes

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"models": [MODEL]})

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response({"name": MODEL, "ready": await self._readiness.reason() is None})

    async def _predict(self, request: web.Request) -> web.Response:
        verb = kserve_v1.VERBS[request.match_info["verb"]]
        options = query_options(request.rel_url.raw_query_string.encode(errors="surrogateescape"))
        questions = kserve_v1.read_instances(verb, await self._read(request), options)
        answers = await self._ask(request, questions)
        _require_all(answers, len(questions))
        return web.Response(body=kserve_v1.write_predictions(verb, answers), content_type=JSON)

    async def _server(self, request: web.Request) -> web.Response:
        content = {"name": "pathmnist-xai", "version": self._version(), "extensions": ["binary_tensor_data"]}
        return web.json_response(content)

    async def _live(self, request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, request: web.Request) -> web.Response:
        self._served_version(request)
        if reason := await self._readiness.reason():
            raise RefusedError(503, reason, "not_ready")
        return web.json_response({"name": MODEL, "ready": True})

    async def _model(self, request: web.Request) -> web.Response:
        return web.json_response(metadata(MODEL, self._served_version(request)))

    async def _infer(self, request: web.Request) -> web.Response:
        version = self._served_version(request)
        inference = read_inference(await self._read(request), request.headers.get(HEADER_LENGTH, ""))
        answers = await self._ask(request, inference.questions())
        _require_all(answers, len(inference.images))
        body, headers = write_answers(inference, MODEL, version, [orjson.loads(answer.body) for answer in answers])
        return web.Response(body=body, headers=headers)

    def _served_version(self, request: web.Request) -> str:
        """The version; raises `RefusedError` if the address names another one."""
        version = self._version()
        if request.match_info.get("version", version) != version:
            raise RefusedError(404, "There is no such model or version.")
        return version

    def _version(self) -> str:
        """Read each time: an update of the model replaces the manifest of a running server."""
        try:
            return str(json.loads(self._manifest.read_text())["model"]["version"])
        except (OSError, ValueError, KeyError) as error:
            raise RefusedError(503, "manifest.json cannot be read; run `python -m export`.", "not_ready") from error


def error_body(error: RefusedError) -> bytes:
    """An error in the protocols' form, with the code first."""
    return orjson.dumps({"error": f"{error.code}: {error}"})


def _require_all(answers: Sequence[Answer], images: int) -> None:
    """Raise the first error among the answers, with the number of its image."""
    for position, answer in enumerate(answers):
        if answer.status != HTTPStatus.OK:
            error = orjson.loads(answer.body)["error"]
            image = position * images // len(answers)
            raise RefusedError(answer.status, f"image {image}: {error['message']}", error["code"], error["field"])
