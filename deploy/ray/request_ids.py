"""Request ids by the rule of TorchServe's edge. Ray's HTTP proxy by itself returns any id that a client sends."""

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.gateway.policy import REQUEST_ID, request_id


class PlainIds:
    """Replaces an id that is not plain before Ray's proxy reads it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = MutableHeaders(scope=scope)
            headers[REQUEST_ID] = request_id(headers.get(REQUEST_ID))
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What Ray's proxy calls at its start (deploy/ray/__init__.py)."""
    return [Middleware(PlainIds)]
