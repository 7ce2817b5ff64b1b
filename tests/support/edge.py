"""Runs the edge in a thread of the test, on a free port."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

from serving.gateway.app import Edge
from serving.gateway.listener import listening
from serving.gateway.settings import Settings
from serving.supervisor import TorchServe


def settings_for(server: TorchServe, **changes: Any) -> Settings:
    """Settings of an edge in front of a running TorchServe."""
    return Settings(inference_address=server.inference_url, metrics_address=server.metrics_url, **changes)


@contextmanager
def running(edge: Edge) -> Iterator[str]:
    """The URL of an edge that runs until the context exits."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        context = listening(edge.application(), sock=listener)
        try:
            asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(10)
            yield f"http://127.0.0.1:{port}"
        finally:
            asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
