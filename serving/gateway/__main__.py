"""`python -m serving.gateway` runs the edge until a signal ends it; `serving.supervisor` starts it."""

import argparse
import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

from serving.gateway.app import Edge
from serving.gateway.grpc_app import grpc_listening
from serving.gateway.listener import listening, tls
from serving.gateway.settings import ROOT, Settings, SettingsError, read_properties, read_settings, require_guarded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties")
    parser.add_argument("--manifest", type=Path, help="manifest.json of the export that is served, for /ready")
    parser.add_argument("--request-log", type=Path, help="file for a line of JSON for each request; it rotates")
    arguments = parser.parse_args()
    token = os.environ.get("PATHMNIST_TOKEN", "")
    try:
        settings = read_settings(read_properties(arguments.config))
        require_guarded(settings, token)
    except SettingsError as error:
        parser.error(str(error))
    asyncio.run(serve(settings, Edge(settings, token, arguments.manifest, arguments.request_log)))


async def serve(settings: Settings, edge: Edge) -> None:
    """Listen on the configured address, and on its gRPC port, until SIGINT or SIGTERM."""
    ended = asyncio.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, ended.set)
    address = urlsplit(settings.edge_address)
    context = None
    if address.scheme == "https" and settings.edge_certificate_file and settings.edge_private_key_file:
        context = tls(settings.edge_certificate_file, settings.edge_private_key_file)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(listening(edge.application(), address.hostname, address.port, ssl=context))
        if settings.edge_grpc_port and edge.describes_model:
            await stack.enter_async_context(grpc_listening(edge.service, address.hostname or "", settings))
        await ended.wait()


if __name__ == "__main__":
    main()
