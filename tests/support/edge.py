"""Runs the edge in a thread of the test, on a free port."""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from threading import Thread
from typing import Any

from serving.gateway.app import Edge
from serving.gateway.grpc_app import grpc_listening
from serving.gateway.listener import listening
from serving.gateway.settings import Settings
from serving.supervisor import TorchServe


def settings_for(server: TorchServe, **changes: Any) -> Settings:
    """Settings of an edge in front of a running TorchServe."""
    return Settings(inference_address=server.inference_url, metrics_address=server.metrics_url, **changes)


@contextmanager
def running(edge: Edge, grpc_settings: Settings | None = None) -> Iterator[str]:
    """The URL of an edge that runs until the context exits; with `grpc_settings` it serves gRPC on loopback too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        contexts = [listening(edge.application(), sock=listener)]
        if grpc_settings:
            contexts.append(grpc_listening(edge.service, "127.0.0.1", grpc_settings))
        with in_thread(contexts):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def in_thread(contexts: Sequence[AbstractAsyncContextManager[None]]) -> Iterator[None]:
    """Enter the contexts, in order, in the event loop of another thread."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    entered = []
    try:
        for context in contexts:
            asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(10)
            entered.append(context)
        yield
    finally:
        for context in reversed(entered):
            asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
