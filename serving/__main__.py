"""`python -m serving COMMAND`: `start` runs the server until Ctrl-C, `stop` stops it from another terminal, `check`
requests a prediction, `page` opens the web page, `update FOLDER` activates the model that was exported to a folder,
`verify FOLDER` verifies the signature of an exported model, `engines` prints the measurements for the selection of the
engine."""

import argparse
import signal
import socket
import sys
import webbrowser
from pathlib import Path
from urllib.parse import urlsplit

from serving.engines import selections
from serving.gateway.settings import ROOT, SettingsError, read_properties, read_settings
from serving.ports import free_addresses
from serving.supervisor import ServerError, TorchServe, require_trusted, stop_running
from serving.update import update


def start(arguments: argparse.Namespace) -> None:
    """Start, print ready after a real prediction, and run until the server terminates or a signal arrives."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = _server(arguments)
    try:
        with server:
            answer = server.wait_until_ready()
            print(f"ready: {server.url}/predictions/pathmnist")
            print(f"page:  {server.url}")
            print(f"model: {answer['model']['name']} {answer['model']['version']} {answer['model']['digest'][:12]}")
            print(f"log:   {server.log}  (Ctrl-C or `make stop` ends the server)", flush=True)
            server.wait()
    except KeyboardInterrupt:
        print("stopped")


def stop(arguments: argparse.Namespace) -> None:
    print("stopped" if stop_running(arguments.run_folder) else "no server is running")


def check(arguments: argparse.Namespace) -> None:
    """Print the prediction of a running server for an example tile. Exit with an error if the request fails."""
    try:
        answer = _server(arguments).ask("explanations" if arguments.explain else "predictions")
    except (OSError, ValueError) as error:
        sys.exit(f"check: {error}")
    methods = [item["method"] for item in answer.get("explanations", [])]
    print(" ".join([answer["prediction"]["code"], f"{answer['prediction']['probability']:.4f}", *methods]))


def page(arguments: argparse.Namespace) -> None:
    """Print the address of a running server's web page and open it, if there is a browser."""
    url = _server(arguments).url
    try:
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=3):
            print(f"page: {url}")
    except OSError:
        sys.exit(f"page: no server answers at {url}; `make serve` starts one")
    webbrowser.open(url)


def engines(arguments: argparse.Namespace) -> None:
    """Print the images per second of each engine, measured at the first start on this machine."""
    tables = selections(arguments.model_store)
    if not tables:
        sys.exit("engines: no measurements yet; start the server once")
    print("\n\n".join(tables))


def update_model(arguments: argparse.Namespace) -> None:
    if arguments.folder is None:
        sys.exit("update: give the folder of an export")
    settings = read_settings(read_properties(arguments.config) | _overrides(arguments))
    print(f"serving {update(settings, arguments.model_store, arguments.folder)}")


def verify(arguments: argparse.Namespace) -> None:
    """Verify the signature of an exported model, as the server does before it starts."""
    settings = read_settings(read_properties(arguments.config) | _overrides(arguments))
    if settings.model_public_key_file is None:
        sys.exit("verify: give --public-key, or set model_public_key_file in the config file")
    folder = arguments.folder or arguments.model_store
    model = require_trusted(folder, settings.model_public_key_file)["model"]
    print(f"verified: {folder}, {model['name']} {model['version']} {model['digest'][:12]}")


def _server(arguments: argparse.Namespace) -> TorchServe:
    settings = _overrides(arguments) | (free_addresses() if arguments.free_ports else {})
    if arguments.edge_address:
        settings["edge_address"] = arguments.edge_address
    return TorchServe(arguments.config, arguments.model_store, arguments.run_folder, settings)


def _overrides(arguments: argparse.Namespace) -> dict[str, str]:
    return {"model_public_key_file": str(arguments.public_key.resolve())} if arguments.public_key else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("command", choices=("start", "stop", "check", "page", "update", "verify", "engines"))
    parser.add_argument("folder", type=Path, nargs="?", help="for update and verify: an output of `python -m export`")
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties")
    parser.add_argument("--model-store", type=Path, default=ROOT / "model_store")
    parser.add_argument("--run-folder", type=Path, default=ROOT / ".run", help="logs and temporary files")
    parser.add_argument("--edge-address", help="overrides the config file, such as http://0.0.0.0:8080")
    parser.add_argument("--public-key", type=Path, help="overrides model_public_key_file of the config file")
    parser.add_argument("--explain", action="store_true", help="for check: request an explanation too")
    parser.add_argument(
        "--free-ports", action="store_true", help="use free loopback ports, to run beside another server"
    )
    arguments = parser.parse_args()
    commands = {
        "start": start,
        "stop": stop,
        "check": check,
        "page": page,
        "update": update_model,
        "verify": verify,
        "engines": engines,
    }
    try:
        commands[arguments.command](arguments)
    except (ServerError, SettingsError) as error:
        sys.exit(f"{arguments.command}: {error}")


if __name__ == "__main__":
    main()
