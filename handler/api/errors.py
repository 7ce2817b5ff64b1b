"""Errors that a client causes, each with a stable code."""

from typing import Any

MAX_QUOTED = 400


class RequestError(Exception):
    """An error in one request: an HTTP status 4xx, a stable `code`, a message, and the field that caused it."""

    def __init__(self, code: str, message: str, field: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = quotable(message)
        self.field = quotable(field)
        self.status = status

    def to_json(self) -> dict[str, Any]:
        return error_json(self.code, self.message, self.field)


def quotable(text: str) -> str:
    """Text that may quote a client, cut to `MAX_QUOTED` characters, with lone surrogates escaped: always UTF-8."""
    return text[:MAX_QUOTED].encode(errors="backslashreplace").decode()


def error_json(code: str, message: str, field: str | None) -> dict[str, Any]:
    """The body of every error answer."""
    return {"error": {"code": code, "message": message, "field": field}}
