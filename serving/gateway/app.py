"""The door in front of TorchServe: query parameters reach the model, explanations have their own workers, and every
error has one form.

TorchServe 0.12 drops the query string of `/predictions/...` and `/explanations/...` without a word; its older path
`/{model}/predict?...` hands it to the handler. The edge rewrites the one into the other, sends explanations to the
same archive under the name `{model}-explain` with the header TorchServe itself would set, and gives TorchServe's own
errors the same JSON form as the handler's. Bodies pass through as they are.

It times every request for Prometheus, writes one line of JSON for each (request_log.py) and sends one span if a
collector is configured (tracing.py).

Where `PATHMNIST_TOKEN` is set, every request but `/ping` and `/ready` must bear it; without it the edge serves loopback
only. Every answer has an `X-Request-Id`: the client's, where it sent a plain one.
"""

import argparse
import asyncio
import hmac
import json
import logging
import math
import os
import re
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from yarl import URL

from serving.gateway.metrics import REQUEST_SECONDS, exposition
from serving.gateway.rate_limit import RateLimit
from serving.gateway.readiness import NotReadyError, Readiness
from serving.gateway.request_log import AuditTrail, RequestLog, timestamp
from serving.gateway.tracing import Traces
from serving.ports import is_loopback

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

UPSTREAM = web.AppKey("upstream", str)
METRICS = web.AppKey("metrics", str)
TOKEN = web.AppKey("token", str)
RATE_LIMIT = web.AppKey("rate_limit", RateLimit)
READ_TIMEOUT = web.AppKey("read_timeout", float)
READINESS = web.AppKey("readiness", Readiness)
REQUEST_LOG = web.AppKey("request_log", RequestLog)
AUDIT = web.AppKey("audit", AuditTrail)
TRACES = web.AppKey("traces", Traces)
SESSION = web.AppKey("session", ClientSession)
VERBS = ("predictions", "explanations")
# What probes ask: without a token, and as often as they like.
OPEN_PATHS = ("/ping", "/ready")
# What config.properties adds to a model's name for the workers that explain.
EXPLAIN_POOL = "-explain"
REQUEST_ID = "X-Request-Id"
IDENTITY = web.RequestKey("identity", str)
# What the handler says of an answer for the log (handler/pathmnist_handler.py).
FACTS_HEADER = "X-Facts"
FACTS = web.RequestKey("facts", str)
PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Seconds for which an idle connection stays open.
KEEPALIVE = 75
FORM = "application/x-www-form-urlencoded"
FORM_TEXT = re.compile(rb"[!-~]*")
# The codes of errors that arise outside the handler.
CODES = {
    400: "request_invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    429: "rate_limited",
    503: "overloaded",
    504: "timeout",
    507: "out_of_memory",
}
HEADERS_OF = {
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
}

logger = logging.getLogger(__name__)


def make_edge(
    upstream: str,
    max_request_size: int,
    metrics: str = "",
    token: str = "",
    *,
    manifest: Path | None = None,
    rate_limit: RateLimit | None = None,
    read_timeout: float = 60,
    request_log: RequestLog | None = None,
    audit: AuditTrail | None = None,
    traces: Traces | None = None,
) -> web.Application:
    """An application that serves `/predictions`, `/explanations` and `/ping` from the TorchServe at `upstream`, and
    `/metrics` from its address `metrics`. With a `token`, who does not bear it gets 401.

    With the `manifest` of an export `/ready` says whether the model answers its golden tile. A body of more than
    `max_request_size` bytes gets 413, one that takes longer than `read_timeout` seconds 408. `request_log` gets a line
    for every request, `traces` a span, and `audit` a line for every answer of the model.
    """
    middlewares = [_identified, _recorded, _uniform_errors, _limited, _authorised]
    application = web.Application(client_max_size=max_request_size, middlewares=middlewares)
    application[UPSTREAM], application[METRICS], application[TOKEN] = upstream, metrics, token
    application[READ_TIMEOUT] = read_timeout
    if rate_limit:
        application[RATE_LIMIT] = rate_limit
    if request_log:
        application[REQUEST_LOG] = request_log
    if audit:
        application[AUDIT] = audit
    if traces:
        application[TRACES] = traces
        application.on_cleanup.append(_send_traces)
    if manifest:
        application[READINESS] = Readiness(manifest, lambda image: _predict(application, image))
        application.router.add_get("/ready", _ready)
    application.cleanup_ctx.append(_client_session)
    for verb in VERBS:
        for path in (f"/{verb}/{{model}}", f"/{verb}/{{model}}/{{version}}"):
            application.router.add_route("POST", path, _infer)
            application.router.add_route("PUT", path, _infer)
    application.router.add_get("/ping", _ping)
    application.router.add_get("/metrics", _metrics)
    return application


async def _client_session(application: web.Application) -> AsyncIterator[None]:
    # TorchServe has its own queue limit and timeouts; a second set here would only disagree with them.
    connector = TCPConnector(limit=0)
    async with ClientSession(connector=connector, timeout=ClientTimeout(total=None), auto_decompress=False) as session:
        application[SESSION] = session
        yield


async def _send_traces(application: web.Application) -> None:
    await asyncio.to_thread(application[TRACES].close)


async def _infer(request: web.Request) -> web.Response:
    verb, _, model = request.rel_url.raw_path.lstrip("/").partition("/")
    # The token stays here: nothing behind the edge has a use for it.
    headers = {REQUEST_ID: request[IDENTITY]}
    if "Content-Type" in request.headers:
        headers["Content-Type"] = request.headers["Content-Type"]
    if verb == "explanations":
        headers["explain"] = "True"
        name, slash, version = model.partition("/")
        model = f"{name}{EXPLAIN_POOL}{slash}{version}"
    body = await _body(request)
    # What curl calls everything that `--data-binary` sends; TorchServe fails to parse an image as a form.
    if request.content_type == FORM and not FORM_TEXT.fullmatch(body[:64]):
        headers["Content-Type"] = "application/octet-stream"
    target = f"/{model}/predict"
    if request.rel_url.raw_query_string:
        target += f"?{request.rel_url.raw_query_string}"
    return await _forward(request, request.app[UPSTREAM] + target, headers, body)


async def _body(request: web.Request) -> bytes:
    limit = request.app[READ_TIMEOUT]
    try:
        async with asyncio.timeout(limit):
            return await request.read()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text=f"The body did not arrive within {limit:g} s.") from error
    except (ConnectionError, web.RequestPayloadError) as error:
        raise web.HTTPBadRequest(text="The connection ended before the body did.") from error


async def _ready(request: web.Request) -> web.Response:
    if reason := await request.app[READINESS].reason():
        return error_response(503, reason, "not_ready")
    return web.json_response({"status": "ready"})


async def _predict(application: web.Application, image: bytes) -> dict[str, Any]:
    headers = {"Content-Type": "application/octet-stream"}
    url = f"{application[UPSTREAM]}/pathmnist/predict"
    try:
        async with application[SESSION].post(url, data=image, headers=headers) as answer:
            if answer.status != HTTPStatus.OK:
                raise NotReadyError(f"The model answers with status {answer.status}.")
            content: dict[str, Any] = await answer.json()
            return content
    except ClientError as error:
        raise NotReadyError("The model server cannot be reached.") from error


async def _ping(request: web.Request) -> web.Response:
    return await _forward(request, f"{request.app[UPSTREAM]}/ping", {}, None)


async def _metrics(request: web.Request) -> web.Response:
    """TorchServe's metrics and ours."""
    answer = await _forward(request, f"{request.app[METRICS]}/metrics", {}, None)
    if answer.status == HTTPStatus.OK and isinstance(answer.body, bytes):
        answer.body += await asyncio.to_thread(exposition)
    return answer


async def _forward(request: web.Request, address: str, headers: dict[str, str], body: bytes | None) -> web.Response:
    url = URL(address, encoded=True)
    try:
        async with request.app[SESSION].request(request.method, url, data=body, headers=headers) as answer:
            content = await answer.read()
            request[FACTS] = answer.headers.get(FACTS_HEADER, "{}")
            if answer.status >= 400 and not _has_our_form(content):
                return error_response(answer.status, _torchserve_message(content))
            kept = {"Content-Type": answer.headers.get("Content-Type", "application/octet-stream")}
            return web.Response(status=answer.status, body=content, headers=kept)
    except ClientError:
        return error_response(503, "The model server cannot be reached.", "unavailable")


def _has_our_form(content: bytes) -> bool:
    return content.startswith(b'{"error":')


def _torchserve_message(content: bytes) -> str:
    try:
        return str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return "The model server refused the request."


def error_response(status: int, message: str, code: str | None = None) -> web.Response:
    """An error in the project's form; 503 says when to come back, 401 what to bring."""
    name = code or CODES.get(status, "internal_error" if status >= 500 else "request_invalid")
    body = {"error": {"code": name, "message": message, "field": None}}
    return web.json_response(body, status=status, headers=HEADERS_OF.get(HTTPStatus(status)))


@web.middleware
async def _identified(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A request keeps its id through all logs; one that is not plain could forge their lines."""
    sent = request.headers.get(REQUEST_ID, "")
    request[IDENTITY] = sent if PLAIN_ID.fullmatch(sent) else str(uuid.uuid4())
    response = await handler(request)
    response.headers[REQUEST_ID] = request[IDENTITY]
    return response


@web.middleware
async def _recorded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Time a request, and write down how it went."""
    start = time.perf_counter()
    response = await handler(request)
    seconds = time.perf_counter() - start
    verb = request.path.split("/")[1]
    if verb not in VERBS or not isinstance(response, web.Response):
        return response
    REQUEST_SECONDS.labels(verb, response.status).observe(seconds)
    try:
        if any(kind in request.app for kind in (REQUEST_LOG, AUDIT, TRACES)):
            _write_down(request, response, verb, seconds)
    except OSError:
        logger.exception("request %s could not be written down", request[IDENTITY])
        return error_response(503, "The audit trail cannot be written, so no answer is given.", "audit_failed")
    return response


def _write_down(request: web.Request, response: web.Response, verb: str, seconds: float) -> None:
    body = response.body if isinstance(response.body, bytes) else b""
    outcome = "ok" if response.status < 400 else json.loads(body)["error"]["code"]
    record = {
        "time": timestamp(),
        "request_id": request[IDENTITY],
        "verb": verb,
        "status": response.status,
        "seconds": round(seconds, 4),
        "request_bytes": request.content_length,
        "response_bytes": len(body),
        "outcome": outcome,
        **json.loads(request.get(FACTS, "{}")),
    }
    if REQUEST_LOG in request.app:
        request.app[REQUEST_LOG].write(record)
    if TRACES in request.app:
        request.app[TRACES].write(record, request.method, request.headers.get("traceparent", ""), time.time_ns())
    if AUDIT in request.app and response.status == HTTPStatus.OK:
        request.app[AUDIT].write(record, body)


@web.middleware
async def _uniform_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        response = error_response(error.status, error.text or error.reason)
        if "Retry-After" in error.headers:
            response.headers["Retry-After"] = error.headers["Retry-After"]
        return response
    except Exception:
        logger.exception("request %s failed", request[IDENTITY])
        return error_response(500, "The server failed to answer this request.")


@web.middleware
async def _limited(request: web.Request, handler: Handler) -> web.StreamResponse:
    limit = request.app.get(RATE_LIMIT)
    if limit is None or request.path in OPEN_PATHS:
        return await handler(request)
    if wait := limit.wait(request.remote or ""):
        hint = {"Retry-After": str(math.ceil(wait))}
        raise web.HTTPTooManyRequests(headers=hint, text="Too many requests from this address.")
    return await handler(request)


@web.middleware
async def _authorised(request: web.Request, handler: Handler) -> web.StreamResponse:
    token = request.app[TOKEN]
    # aiohttp keeps bytes that are not UTF-8 as surrogates.
    borne = request.headers.get("Authorization", "").encode(errors="surrogateescape")
    if token and request.path not in OPEN_PATHS and not hmac.compare_digest(borne, f"Bearer {token}".encode()):
        raise web.HTTPUnauthorized(text="The header Authorization must bear the server's token.")
    return await handler(request)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, help="address to serve, such as http://127.0.0.1:8080")
    parser.add_argument("--upstream", required=True, help="TorchServe's inference address")
    parser.add_argument("--metrics", required=True, help="TorchServe's metrics address")
    parser.add_argument("--manifest", type=Path, help="manifest.json of the export that is served, for /ready")
    parser.add_argument("--max-request-size", type=int, required=True, help="bytes")
    parser.add_argument("--read-timeout", type=float, default=60, help="seconds for a request's body to arrive")
    parser.add_argument("--rate-limit", type=float, default=0, help="requests a second of one address, 0 for any")
    parser.add_argument("--rate-burst", type=int, default=20, help="requests of one address at once, after a rest")
    parser.add_argument("--request-log", type=Path, help="file for a line of JSON for each request; it rotates")
    parser.add_argument("--audit", type=Path, help="file for a line of JSON for each answer; it only grows")
    parser.add_argument("--traces", help="collector for OpenTelemetry traces, such as http://127.0.0.1:4318/v1/traces")
    parser.add_argument("--certificate", type=Path, help="certificate chain of an https address, PEM")
    parser.add_argument("--key", type=Path, help="its private key, PEM")
    arguments = parser.parse_args()
    address = urlsplit(arguments.listen)
    token = os.environ.get("PATHMNIST_TOKEN", "")
    if not token and not is_loopback(address.hostname or ""):
        parser.error(f"{arguments.listen} can be reached by others: set PATHMNIST_TOKEN")
    if address.scheme == "https" and not (arguments.certificate and arguments.key):
        parser.error(f"{arguments.listen} needs a certificate and its key")
    application = make_edge(
        arguments.upstream,
        arguments.max_request_size,
        arguments.metrics,
        token,
        manifest=arguments.manifest,
        rate_limit=RateLimit(arguments.rate_limit, arguments.rate_burst) if arguments.rate_limit else None,
        read_timeout=arguments.read_timeout,
        request_log=RequestLog(arguments.request_log) if arguments.request_log else None,
        audit=AuditTrail(arguments.audit) if arguments.audit else None,
        traces=Traces(arguments.traces) if arguments.traces else None,
    )
    web.run_app(
        application,
        host=address.hostname,
        port=address.port,
        ssl_context=_tls(arguments.certificate, arguments.key) if address.scheme == "https" else None,
        keepalive_timeout=KEEPALIVE,
        access_log=None,
        print=None,
    )


def _tls(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


if __name__ == "__main__":
    main()
