"""`python -m demo` serves the page. Options are arguments or variables of the environment; the token only the latter,
since arguments can be read by everyone on the machine."""

import argparse
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--server", default=_setting("URL", "http://127.0.0.1:8080"), help="address of the API")
    parser.add_argument(
        "--metrics", default=_setting("METRICS_URL", "http://127.0.0.1:8080"), help="address of the metrics"
    )
    parser.add_argument("--model", default="pathmnist", help="name of the model on the server")
    parser.add_argument("--timeout", type=float, default=60, help="seconds to wait for an answer")
    parser.add_argument("--host", default=_setting("DEMO_HOST", "127.0.0.1"), help="address to serve the page on")
    parser.add_argument("--port", type=int, default=int(_setting("DEMO_PORT", "7860")))
    parser.add_argument("--reports", type=Path, default=ROOT / "docs" / "evaluation", help="folder of the reports")
    parser.add_argument("--data", type=Path, help="your own PathMNIST file (MedMNIST's .npz) for the tissue guide")
    parser.add_argument("--keep", type=int, default=30, help="seconds that the file of an upload may lie on disk")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _require_free(arguments.host, arguments.port)
    with tempfile.TemporaryDirectory(prefix="pathmnist-demo-") as folder:
        # Gradio reads these when it is imported.
        os.environ.update(GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1")
        serve(arguments)


def _setting(name: str, default: str) -> str:
    return os.environ.get(f"PATHMNIST_{name}", default)


def _require_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            sys.exit(f"demo: {host}:{port} cannot be used ({error.strerror}); --port chooses another")


def serve(arguments: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C."""
    from demo.client import Client
    from demo.guide import DataError, downloaded_tiles, generated_tiles
    from demo.launch import launch
    from demo.page import Content, build

    client = Client(
        arguments.server.rstrip("/"),
        arguments.metrics.rstrip("/"),
        arguments.model,
        os.environ.get("PATHMNIST_TOKEN"),
        arguments.timeout,
    )
    try:
        tiles = downloaded_tiles(arguments.data) if arguments.data else generated_tiles()
    except DataError as error:
        sys.exit(f"demo: {error}")
    origin = f"test tiles from {arguments.data.name}" if arguments.data else "generated, not real tissue"
    content = Content(arguments.reports, tiles, origin, arguments.keep)
    launch(build(client, content), arguments.host, arguments.port)


if __name__ == "__main__":
    main()
