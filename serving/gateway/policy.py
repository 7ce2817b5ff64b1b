"""The rules of every front, without a web framework: errors, request ids, the token, and cross-origin requests.

The edge in front of TorchServe (app.py) and the one in front of Ray's replicas (deploy/ray/serve.py) apply them.
"""

import hmac
import re
import uuid
from collections.abc import Mapping
from http import HTTPStatus

import orjson

from serving.gateway.settings import Settings

VERBS = ("predictions", "explanations")
METHODS = ("POST", "PUT")
# Probes need no token and have no rate limit.
OPEN_PATHS = ("/ping", "/ready")
REQUEST_ID = "X-Request-Id"
PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
JSON = "application/json"
MAX_QUOTED = 400
# Seconds for which a browser remembers a preflight.
PREFLIGHT_AGE = "600"
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
HEADERS: dict[int, dict[str, str]] = {
    401: {"WWW-Authenticate": "Bearer"},
    405: {"Allow": ", ".join(METHODS)},
    503: {"Retry-After": "1"},
}


class RefusedError(Exception):
    """A request that a front answers itself: a status, a stable `code`, the error as a JSON `body`, and headers."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or CODES.get(status, "internal_error" if status >= 500 else "request_invalid")
        error = {"code": self.code, "message": quotable(message), "field": None if field is None else quotable(field)}
        self.body = orjson.dumps({"error": error})
        self.headers = {**HEADERS.get(status, {}), **(headers or {})}


def quotable(text: str) -> str:
    """Text that may quote a client, cut to `MAX_QUOTED` characters, with lone surrogates escaped: always UTF-8."""
    return text[:MAX_QUOTED].encode(errors="backslashreplace").decode()


def request_id(sent: str | None) -> str:
    """The id that a client sent, or a new one if that is not plain and could forge lines of a log."""
    return sent if sent and PLAIN_ID.fullmatch(sent) else str(uuid.uuid4())


def require_token(token: str, authorization: bytes) -> None:
    """Raise `RefusedError` if a server with a token gets another one, or none."""
    if token and not hmac.compare_digest(authorization, f"Bearer {token}".encode()):
        raise RefusedError(HTTPStatus.UNAUTHORIZED, "The header Authorization must hold the server's token.")


def cors_headers(settings: Settings, origin: str | None) -> dict[str, str]:
    """What an answer to a page of another origin carries; nothing for an origin that is not allowed."""
    allowed = settings.cors_allowed_origin
    if not origin or not {"*", origin} & set(allowed):
        return {}
    exposed = {"Access-Control-Expose-Headers": f"{REQUEST_ID}, Retry-After"}
    if "*" in allowed:
        return {"Access-Control-Allow-Origin": "*", **exposed}
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin", **exposed}


def preflight_headers(settings: Settings, origin: str | None) -> dict[str, str]:
    """The answer to a browser that asks whether it may send a request; raises `RefusedError` if it may not."""
    headers = cors_headers(settings, origin)
    if not headers:
        raise RefusedError(HTTPStatus.FORBIDDEN, "Pages of this origin may not call the server.")
    return {
        **headers,
        "Access-Control-Allow-Methods": ", ".join(settings.cors_allowed_methods),
        "Access-Control-Allow-Headers": ", ".join(settings.cors_allowed_headers),
        "Access-Control-Max-Age": PREFLIGHT_AGE,
    }
