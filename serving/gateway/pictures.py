"""What the page shows of a region or slide: its size, its Deep Zoom tiles, and the pixels of one place."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from aiohttp import web

from serving.gateway.policy import JSON, RefusedError
from serving.gateway.viewing import Viewing

# Longest side of a place in pixels of the file.
MAX_SIDE = 4096
PLACE = ("x", "y", "width", "height")
HEADERS = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}

Find = Callable[[web.Request], Path]
Handler = Callable[[web.Request], Awaitable[web.Response]]


class Pictures:
    """Routes below an address, for the file that `find` gives for a request."""

    def __init__(self, viewing: Viewing) -> None:
        self._viewing = viewing

    def add_routes(self, application: web.Application, address: str, find: Find) -> None:
        tile = "{level:[0-9]{1,2}}/{column:[0-9]{1,6}}_{row:[0-9]{1,6}}.jpeg"
        application.router.add_get(address, self._handler(find, _no_numbers, "shape", JSON))
        application.router.add_get(f"{address}/{tile}", self._handler(find, _tile, "tile", "image/jpeg"))
        application.router.add_get(f"{address}/place", self._handler(find, _place, "place", "image/png"))

    def _handler(
        self, find: Find, read: Callable[[web.Request], Mapping[str, int]], want: str, content_type: str
    ) -> Handler:
        async def send(request: web.Request) -> web.Response:
            question = {"want": want, "path": str(find(request)), **read(request)}
            body = await self._viewing.ask(question)
            return web.Response(body=body, content_type=content_type, headers=HEADERS)

        return send


def _no_numbers(_: web.Request) -> Mapping[str, int]:
    return {}


def _tile(request: web.Request) -> Mapping[str, int]:
    return {name: int(request.match_info[name]) for name in ("level", "column", "row")}


def _place(request: web.Request) -> Mapping[str, int]:
    """A place in pixels of the file, from the query; raises `RefusedError`."""
    return {name: _side(name, request.query.get(name, "")) for name in PLACE}


def _side(name: str, text: str) -> int:
    largest = MAX_SIDE if name in ("width", "height") else 10**7
    if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) <= largest):
        raise RefusedError(400, f"{name!r} must be a whole number up to {largest}.", "parameter_invalid", name)
    return int(text)
