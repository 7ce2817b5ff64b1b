"""The edge's HTTP server."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from serving.gateway.policy import JSON, REQUEST_ID, RefusedError, request_id

# Seconds for which an idle connection stays open.
KEEPALIVE = 75

# aiohttp would log a traceback for every malformed request; the edge logs its own faults itself.
QUIET = logging.getLogger(f"{__name__}.http")
QUIET.setLevel(logging.CRITICAL)


class Connection(web.RequestHandler):
    """A connection of aiohttp. Bodies arrive as they were sent, and requests that aiohttp refuses before any route sees
    them (malformed lines, long headers, unknown expectations) get an error in the common form."""

    __slots__ = ()

    def __init__(self, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            server,
            loop=loop,
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE,
            access_log=None,  # type: ignore[arg-type]
            logger=QUIET,
        )

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if resp.status >= 400 and resp.content_type != JSON:
            resp = _refusal(request, resp)
        return await super().finish_response(request, resp, start_time)


@asynccontextmanager
async def listening(
    application: web.Application, host: str | None = None, port: int | None = None, **options: Any
) -> AsyncIterator[None]:
    """Serve an application as long as the context lasts; `options` are those of asyncio's `create_server`."""
    loop = asyncio.get_running_loop()
    runner = web.AppRunner(application)
    await runner.setup()
    server = runner.server
    assert server is not None
    listener = await loop.create_server(lambda: Connection(server, loop), host, port, **options)
    try:
        yield
    finally:
        listener.close()
        await runner.cleanup()


@asynccontextmanager
async def on_loopback(application: web.Application) -> AsyncIterator[str]:
    """Serve an application to this machine alone, on a free port; the context is its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with listening(application, sock=listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's side of TLS, from PEM files."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


def _refusal(request: web.BaseRequest, response: web.StreamResponse) -> web.Response:
    text = response.text if isinstance(response, web.Response) else None
    error = RefusedError(response.status, " ".join((text or "The request is not valid HTTP.").split()))
    answer = web.Response(status=error.status, body=error.body, content_type=JSON, headers=error.headers)
    answer.headers[REQUEST_ID] = request_id(request.headers.get(REQUEST_ID))
    answer.force_close()
    return answer
