"""What a client can do wrong, each with a stable code."""

from typing import Any

MAX_QUOTED = 400


class RequestError(Exception):
    """A fault of one request: an HTTP status 4xx, a stable `code`, a message, and the field at fault."""

    def __init__(self, code: str, message: str, field: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        # Both may quote what the client sent, at any length.
        self.message = message[:MAX_QUOTED]
        self.field = field[:MAX_QUOTED]
        self.status = status

    def to_json(self) -> dict[str, Any]:
        return error_json(self.code, self.message, self.field)


def error_json(code: str, message: str, field: str | None) -> dict[str, Any]:
    """The body of every error answer."""
    return {"error": {"code": code, "message": message, "field": field}}
