"""The edge: the routes in front of TorchServe, and what happens to every request on its way.

A request gets an id, cross-origin headers, a line in the log, errors in one form, a rate limit and a token check, in
this order. Its query and body become one payload (payload.py), which TorchServe gets (upstream.py).
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

from serving.gateway import kserve
from serving.gateway.answer import Answer, Question, common_error, join, refusal
from serving.gateway.exchange import Exchange
from serving.gateway.keys import ANSWERS, IDENTITY, VERB
from serving.gateway.metrics import exposition
from serving.gateway.open_inference_http import HEADER_LENGTH
from serving.gateway.pages import add_pages
from serving.gateway.payload import Batch, Payload, decompressed, read_payload
from serving.gateway.policy import (
    HEADERS,
    JSON,
    METHODS,
    OPEN_PATHS,
    REQUEST_ID,
    VERBS,
    RefusedError,
    cors_headers,
    preflight_headers,
    request_id,
)
from serving.gateway.regions import Regions
from serving.gateway.service import Service
from serving.gateway.settings import Settings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

NAME = "[A-Za-z0-9][A-Za-z0-9._-]*"
ROUTES = tuple(
    f"/{{verb:{verb}}}/{{model:{NAME}}}{version}" for verb in VERBS for version in ("", f"/{{version:{NAME}}}")
)
# Paths that are recorded, by their first parts.
RECORDED = (*VERBS, "regions")
# Bytes up to which a body is read at once; a larger one is read beside the event loop.
SMALL = 256 * 1024

logger = logging.getLogger(__name__)


class Edge:
    """Serves `/predictions`, `/explanations`, `/ping` and `/metrics` from a TorchServe, and the web page.

    `token`, `manifest` and `request_log` are those of its `service`. With a manifest there are `/ready`, `/models` and
    KServe's protocols. With a folder of jobs in the settings it also serves `/regions`.
    """

    def __init__(
        self, settings: Settings, token: str = "", manifest: Path | None = None, request_log: Path | None = None
    ) -> None:
        self.service = Service(settings, token, manifest, request_log)
        self._settings = settings
        self._protocols = kserve.KServe(self.service.model_version, self.service.reason)
        self._manifest = manifest
        self.describes_model = manifest is not None
        self._open_paths = frozenset(OPEN_PATHS)
        jobs = settings.edge_jobs_folder
        self._regions = Regions(jobs, settings, self._payload, self._inner) if jobs else None

    def application(self) -> web.Application:
        middlewares = [self._identify, self._share, self._record, self._refuse, self._admit]
        application = web.Application(client_max_size=self._settings.max_request_size, middlewares=middlewares)
        for path in ROUTES:
            for method in METHODS:
                application.router.add_route(method, path, self._infer)
        application.router.add_get("/ping", self._ping)
        application.router.add_get("/metrics", self._metrics)
        if self.describes_model:
            application.router.add_get("/ready", self._ready)
            application.router.add_get(f"/models/{kserve.MODEL}", self._about)
            for path in ("/v1/{tail:.*}", "/v2{tail:.*}"):
                application.router.add_route("*", path, self._kserve)
        if self._regions:
            self._regions.add_routes(application)
        self._open_paths |= add_pages(application)
        application.cleanup_ctx.append(self._lifetime)
        return application

    def _inner(self, token: str) -> web.Application:
        """What the processes of regions ask: the same model, without the rules for clients."""
        settings = replace(
            self._settings, edge_rate_limit=0, edge_audit_file=None, edge_traces_endpoint="", edge_jobs_folder=None
        )
        inner = Edge(settings, token, self._manifest)
        inner.service.yields_to = self.service.priority
        return inner.application()

    async def _lifetime(self, _: web.Application) -> AsyncIterator[None]:
        async with self.service:
            yield

    async def _infer(self, request: web.Request) -> web.Response:
        verb, payload = request.match_info["verb"], await self._payload(request, self._settings.max_request_size)
        if isinstance(payload, Batch):
            answers = await self._ask_each(request, [Question(verb, item) for item in payload.payloads])
            if error := common_error(answers):
                return _response(error)
            return web.Response(body=join(answers), content_type=JSON)
        answer = await self.service.ask(Question(verb, payload), request[IDENTITY], *_model(request))
        request[ANSWERS] = (answer,)
        return _response(answer)

    async def _ask_each(self, request: web.Request, questions: Sequence[Question]) -> Sequence[Answer]:
        """The answers to several questions, each of which counts as a request."""
        request[VERB] = questions[0].verb
        address = (request[IDENTITY], request.remote or "", *_model(request))
        request[ANSWERS] = await self.service.ask_each(questions, *address)
        return request[ANSWERS]

    async def _payload(self, request: web.Request, limit: int) -> Payload | Batch:
        """The query and the body, of at most `limit` bytes."""
        body = await self._body(request.clone(client_max_size=limit))
        arguments = (
            _raw(request.rel_url.raw_query_string),
            body,
            _raw(", ".join(request.headers.getall("Content-Type", []))),
            ", ".join(request.headers.getall("Content-Encoding", [])),
            limit,
        )
        if len(body) > SMALL:
            return await asyncio.to_thread(read_payload, *arguments)
        return read_payload(*arguments)

    async def _plain_body(self, request: web.Request) -> bytes:
        """The body after decompression."""
        encoding = ", ".join(request.headers.getall("Content-Encoding", []))
        limit = self._settings.max_request_size
        return await asyncio.to_thread(decompressed, await self._body(request), encoding, limit)

    async def _body(self, request: web.Request) -> bytes:
        limit = self._settings.edge_read_timeout
        try:
            async with asyncio.timeout(limit):
                return await request.read()
        except TimeoutError as error:
            raise RefusedError(408, f"The body did not arrive within {limit:g} s.") from error
        except (ConnectionError, web.RequestPayloadError) as error:
            raise RefusedError(400, "The connection ended before the body did.") from error

    async def _ready(self, request: web.Request) -> web.Response:
        if reason := await self.service.reason():
            raise RefusedError(503, reason, "not_ready")
        return web.json_response({"status": "ready"})

    async def _about(self, request: web.Request) -> web.Response:
        return web.json_response(self.service.described("about"))

    async def _kserve(self, request: web.Request) -> web.Response:
        call = kserve.Call(
            request.method,
            request.path,
            _raw(request.rel_url.raw_query_string),
            request.headers.get(HEADER_LENGTH, ""),
            partial(self._plain_body, request),
            partial(self._ask_each, request),
        )
        reply = await self._protocols.respond(call)
        return web.Response(body=reply.body, headers=reply.headers)

    async def _ping(self, request: web.Request) -> web.Response:
        return _response(await self.service.upstream.ping())

    async def _metrics(self, request: web.Request) -> web.Response:
        """TorchServe's metrics and ours."""
        answer = await self.service.upstream.metrics()
        ours = await asyncio.to_thread(exposition)
        return web.Response(body=answer.body + ours, headers={"Content-Type": answer.content_type})

    @web.middleware
    async def _identify(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        request[IDENTITY] = request_id(request.headers.get(REQUEST_ID))
        response = await handler(request)
        response.headers[REQUEST_ID] = request[IDENTITY]
        return response

    @web.middleware
    async def _share(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer preflights, and let pages of allowed origins read every other answer."""
        origin = request.headers.get("Origin")
        preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if preflight and self._settings.cors_allowed_origin:
            try:
                return web.Response(status=HTTPStatus.NO_CONTENT, headers=preflight_headers(self._settings, origin))
            except RefusedError as error:
                return _error(request, error)
        response = await handler(request)
        response.headers.update(cors_headers(self._settings, origin))
        return response

    @web.middleware
    async def _record(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        start = time.perf_counter()
        response = await handler(request)
        if not isinstance(response, web.Response) or not (verb := _verb(request)):
            return response
        try:
            self.service.record(_exchanges(request, response, verb, time.perf_counter() - start))
        except RefusedError as error:
            return _error(request, error)
        return response

    @web.middleware
    async def _refuse(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every error in the one form."""
        try:
            return await handler(request)
        except RefusedError as error:
            refused = error
        except web.HTTPException as error:
            refused = _refusal(request, error)
        except Exception:
            logger.exception("request %s failed", request[IDENTITY])
            refused = RefusedError(500, "The server failed to answer this request.")
        request[ANSWERS] = (refusal(refused),)
        return _error(request, refused)

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in self._open_paths:
            self.service.admit(request.remote or "", _raw(request.headers.get("Authorization", "")))
        return await handler(request)


def _verb(request: web.Request) -> str:
    """What a request asks of the model; "" if it does not reach it."""
    first = request.path.lstrip("/").partition("/")[0]
    return first if first in RECORDED else request.get(VERB, "") or kserve.verb_of(request.path)


def _model(request: web.Request) -> tuple[str, str]:
    """The name and the version of the model that a request asks."""
    return request.match_info.get("model", kserve.MODEL), request.match_info.get("version", "")


def _exchanges(request: web.Request, response: web.Response, verb: str, seconds: float) -> Iterator[Exchange]:
    """What to write down: one entry for each question."""
    body = response.body if isinstance(response.body, bytes) else b""
    for answer in request.get(ANSWERS) or (Answer(response.status, JSON, body),):
        yield Exchange(
            request[IDENTITY],
            request.method,
            verb,
            request.headers.get("traceparent", ""),
            answer.status,
            seconds,
            request.content_length,
            answer.body,
            answer.facts,
        )


def _response(answer: Answer) -> web.Response:
    headers = {"Content-Type": answer.content_type, **HEADERS.get(answer.status, {})}
    return web.Response(status=answer.status, body=answer.body, headers=headers)


def _error(request: web.Request, error: RefusedError) -> web.Response:
    body = kserve.error_body(request.path, error)
    return web.Response(status=error.status, body=body, content_type=JSON, headers=error.headers)


def _refusal(request: web.Request, error: web.HTTPException) -> RefusedError:
    """An error of aiohttp's routes in the common form."""
    match error.status:
        case HTTPStatus.NOT_FOUND:
            return RefusedError(404, "There is nothing at this address; POST images to /predictions/pathmnist.")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            headers = {"Allow": error.headers["Allow"]}
            return RefusedError(405, f"{request.method} is not allowed here; see the header Allow.", headers=headers)
    return RefusedError(error.status, error.text or error.reason)


def _raw(text: str) -> bytes:
    """aiohttp keeps bytes that are not UTF-8 as surrogates."""
    return text.encode(errors="surrogateescape")
