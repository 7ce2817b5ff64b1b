"""The door in front of TorchServe: query parameters reach the model, explanations have their own workers, and every
error has one form.

TorchServe 0.12 drops the query string of `/predictions/...` and `/explanations/...` without a word; its older path
`/{model}/predict?...` hands it to the handler. The edge rewrites the one into the other, sends explanations to the
same archive under the name `{model}-explain` with the header TorchServe itself would set, and gives TorchServe's own
errors the same JSON form as the handler's. Bodies pass through as they are.

Where `PATHMNIST_TOKEN` is set, every request but `/ping` must bear it; without it the edge serves loopback only.
"""

import argparse
import hmac
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from yarl import URL

UPSTREAM = web.AppKey("upstream", str)
METRICS = web.AppKey("metrics", str)
TOKEN = web.AppKey("token", str)
SESSION = web.AppKey("session", ClientSession)
VERBS = ("predictions", "explanations")
# What config.properties adds to a model's name for the workers that explain.
EXPLAIN_POOL = "-explain"
REQUEST_HEADERS = ("Content-Type", "Authorization", "X-Request-Id")
FORM = "application/x-www-form-urlencoded"
FORM_TEXT = re.compile(rb"[!-~]*")
RESPONSE_HEADERS = ("Content-Type", "X-Request-Id")
# The codes of errors that arise outside the handler.
CODES = {
    400: "request_invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    503: "overloaded",
    504: "timeout",
    507: "out_of_memory",
}
HEADERS_OF = {
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
}


def make_edge(upstream: str, max_request_size: int, metrics: str = "", token: str = "") -> web.Application:
    """An application that serves `/predictions`, `/explanations` and `/ping` from the TorchServe at `upstream`, and
    `/metrics` from its address `metrics`. With a `token`, who does not bear it gets 401."""
    application = web.Application(client_max_size=max_request_size, middlewares=[_uniform_errors, _authorised])
    application[UPSTREAM], application[METRICS], application[TOKEN] = upstream, metrics, token
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


async def _infer(request: web.Request) -> web.Response:
    verb, _, model = request.rel_url.raw_path.lstrip("/").partition("/")
    headers = {name: request.headers[name] for name in REQUEST_HEADERS if name in request.headers}
    if verb == "explanations":
        headers["explain"] = "True"
        name, slash, version = model.partition("/")
        model = f"{name}{EXPLAIN_POOL}{slash}{version}"
    body = await request.read()
    # What curl calls everything that `--data-binary` sends; TorchServe fails to parse an image as a form.
    if request.content_type == FORM and not FORM_TEXT.fullmatch(body[:64]):
        headers["Content-Type"] = "application/octet-stream"
    target = f"/{model}/predict"
    if request.rel_url.raw_query_string:
        target += f"?{request.rel_url.raw_query_string}"
    return await _forward(request, request.app[UPSTREAM] + target, headers, body)


async def _ping(request: web.Request) -> web.Response:
    return await _forward(request, f"{request.app[UPSTREAM]}/ping", {}, None)


async def _metrics(request: web.Request) -> web.Response:
    return await _forward(request, f"{request.app[METRICS]}/metrics", {}, None)


async def _forward(request: web.Request, address: str, headers: dict[str, str], body: bytes | None) -> web.Response:
    url = URL(address, encoded=True)
    try:
        async with request.app[SESSION].request(request.method, url, data=body, headers=headers) as answer:
            content = await answer.read()
            if answer.status >= 400 and not _has_our_form(content):
                return error_response(answer.status, _torchserve_message(content))
            kept = {name: answer.headers[name] for name in RESPONSE_HEADERS if name in answer.headers}
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
async def _uniform_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return error_response(error.status, error.text or error.reason)


@web.middleware
async def _authorised(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    token = request.app[TOKEN]
    # aiohttp keeps bytes that are not UTF-8 as surrogates.
    borne = request.headers.get("Authorization", "").encode(errors="surrogateescape")
    if token and request.path != "/ping" and not hmac.compare_digest(borne, f"Bearer {token}".encode()):
        raise web.HTTPUnauthorized(text="The header Authorization must bear the server's token.")
    return await handler(request)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True, help="address to serve, such as http://127.0.0.1:8080")
    parser.add_argument("--upstream", required=True, help="TorchServe's inference address")
    parser.add_argument("--metrics", required=True, help="TorchServe's metrics address")
    parser.add_argument("--max-request-size", type=int, required=True, help="bytes")
    arguments = parser.parse_args()
    address = urlsplit(arguments.listen)
    token = os.environ.get("PATHMNIST_TOKEN", "")
    if not token and not is_loopback(address.hostname or ""):
        parser.error(f"{arguments.listen} can be reached by others: set PATHMNIST_TOKEN")
    application = make_edge(arguments.upstream, arguments.max_request_size, arguments.metrics, token)
    web.run_app(application, host=address.hostname, port=address.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
