"""Runs TorchServe and its edge as one process group: configure, start, check readiness, stop."""

import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import psutil

from serving.frontend import FORKS, MAIN_CLASS, listen, start_forkserver, start_frontend
from serving.gateway.settings import ROOT as ROOT
from serving.gateway.settings import read_properties, read_settings, write_properties
from serving.ports import ADDRESSES, GRPC_PORTS, port_of, reachable

TILE = ROOT / "docs" / "tile.png"
ARCHIVE = "pathmnist.mar"
METRICS = ROOT / "serving" / "metrics.yaml"


class ServerError(RuntimeError):
    """TorchServe cannot start, or does not respond."""


class TorchServe:
    """TorchServe with its Java frontend, its workers and the edge, on the addresses of a config file.

    `settings` override or extend that file. TorchServe writes all its files (logs, keys, unpacked archives, pid
    file) to `run_folder`, so several servers can run side by side. All processes share a process group, which `stop`
    terminates.
    """

    def __init__(
        self, config: Path, model_store: Path, run_folder: Path, settings: dict[str, str] | None = None
    ) -> None:
        self._model_store = model_store.resolve()
        self._run_folder = run_folder.resolve()
        self._properties = {**read_properties(config), **(settings or {})}
        self._settings = read_settings(self._properties)
        self._process: subprocess.Popen[bytes] | None = None
        self._forks: subprocess.Popen[bytes] | None = None
        self._edge: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The edge's URL for clients on this machine."""
        return reachable(self._settings.edge_address)

    @property
    def open_inference_address(self) -> str:
        """The edge's Open Inference Protocol over gRPC."""
        host = urlsplit(self.url).netloc.rpartition(":")[0]
        return f"{host}:{self._settings.edge_grpc_port}"

    @property
    def inference_url(self) -> str:
        """TorchServe's own inference API."""
        return self._settings.inference_address

    @property
    def management_url(self) -> str:
        return self._settings.management_address

    @property
    def metrics_url(self) -> str:
        """The server of `/metrics`, which is the edge: TorchServe's and the project's metrics."""
        return self.url

    @property
    def request_log(self) -> Path:
        """The request log: one line of JSON for each request."""
        return self._run_folder / "requests.jsonl"

    @property
    def grpc_address(self) -> str:
        """TorchServe's gRPC inference API."""
        return f"127.0.0.1:{self._settings.grpc_inference_port}"

    @property
    def log(self) -> Path:
        """The output of the frontend and the workers."""
        return self._run_folder / "torchserve.log"

    def start(self) -> None:
        """Start the processes. Raises `ServerError` if a port is taken, the model store is empty, its archive differs
        from the exported one, or it lacks a signature that the settings demand."""
        manifest = require_trusted(self._model_store, self._settings.model_public_key_file)
        for name, port in self._ports().items():
            require_free(name, port)
        temporary = self._run_folder / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        counts = self._run_folder / "metrics"
        shutil.rmtree(counts, ignore_errors=True)
        counts.mkdir()
        config = self._run_folder / "config.properties"
        models = json.dumps(of_version(self._settings.models, manifest["model"]["version"]))
        defaults = {"metrics_config": str(METRICS), "edge_jobs_folder": str(self._run_folder / "jobs")}
        write_properties({**defaults, **self._properties, "models": models}, config)
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PATHMNIST_TOKEN"},
            "TMPDIR": str(temporary),
            "TEMP": str(temporary),
            "LOG_LOCATION": str(self._run_folder / "logs"),
            "METRICS_LOCATION": str(self._run_folder / "logs"),
            "PROMETHEUS_MULTIPROC_DIR": str(counts),
            "PATHMNIST_ENGINE": self._settings.engine,
            "PATHMNIST_SELECTIONS": str(self._selections()),
        }
        with self.log.open("wb") as log, listen(temporary) as listener:
            self._process = start_frontend(config, self._model_store, temporary, environment, log)
            (self._run_folder / "group.pid").write_text(str(self._process.pid))
            if FORKS:
                self._forks = start_forkserver(listener, environment, log, self._process.pid)
            self._edge = self._start_edge(config, log, self._process.pid, counts)

    def _start_edge(self, config: Path, log: BinaryIO, group: int, counts: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "serving.gateway", "--config", str(config)]
        command += ["--manifest", str(self._model_store / "manifest.json"), "--request-log", str(self.request_log)]
        environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(counts)}
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, process_group=group)

    def _selections(self) -> Path:
        """The folder for the engine selection: beside the archive if that folder is writable."""
        return self._model_store if os.access(self._model_store, os.W_OK) else self._run_folder

    def _running(self) -> bool:
        return all(process is not None and process.poll() is None for process in (self._process, self._edge))

    def wait_until_ready(self, timeout: float = 180) -> dict[str, Any]:
        """Wait until the model in the store predicts and explains, and return the prediction; raises `ServerError`.

        `/ping` is not sufficient: it reports Healthy while workers crash.
        """
        expected = json.loads((self._model_store / "manifest.json").read_text())["model"]["digest"]
        deadline = time.monotonic() + timeout
        problem = "no answer"
        while time.monotonic() < deadline:
            if not self._running():
                raise ServerError(f"the server terminated unexpectedly:\n{self._log_tail()}")
            try:
                self._require_frontend()
                answer = self.ask("predictions", deadline - time.monotonic())
                self.ask("explanations", deadline - time.monotonic())
            except (OSError, ValueError) as error:
                problem = str(error)
                time.sleep(0.25)
                continue
            if answer["model"]["digest"] != expected:
                raise ServerError("the server answers with another model than the one in the model store")
            return answer
        raise ServerError(f"no prediction within {timeout:.0f} s ({problem}):\n{self._log_tail()}")

    def _require_frontend(self) -> None:
        """Raise `OSError` before TorchServe listens: requests to the edge would count against the rate limit."""
        address = urlsplit(reachable(self.inference_url))
        socket.create_connection((address.hostname or "", port_of(self.inference_url)), timeout=5).close()

    def ask(self, verb: str, patience: float = 60) -> dict[str, Any]:
        """The response for an example tile. Raises `OSError` or `ValueError` if it takes over `patience` seconds."""
        request = urllib.request.Request(f"{self.url}/{verb}/pathmnist", data=TILE.read_bytes(), method="POST")
        request.add_header("Content-Type", "application/octet-stream")
        request.add_header("Authorization", f"Bearer {os.environ.get('PATHMNIST_TOKEN', '')}")
        with urllib.request.urlopen(request, timeout=max(patience, 1), context=self._trust()) as response:
            answer: dict[str, Any] = json.loads(response.read())
        return answer

    def _trust(self) -> ssl.SSLContext | None:
        """Trusts only the edge's own certificate, with any host name, because this machine connects by IP address."""
        if not self.url.startswith("https:"):
            return None
        context = ssl.create_default_context(cafile=self._settings.edge_certificate_file)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.check_hostname = False
        return context

    def wait(self) -> None:
        """Block until TorchServe or the edge terminates."""
        while self._running():
            time.sleep(0.5)

    def stop(self) -> None:
        """Stop the edge, the frontend and every worker."""
        if self._process is None:
            return
        end_group(self._process.pid)
        for process in (self._process, self._forks, self._edge):
            if process is not None:
                process.wait()
        self._process = self._forks = self._edge = None
        (self._run_folder / "group.pid").unlink(missing_ok=True)

    def __enter__(self) -> "TorchServe":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _ports(self) -> dict[str, int]:
        ports = {name: port_of(getattr(self._settings, name)) for name in ADDRESSES}
        return ports | {name: getattr(self._settings, name) for name in GRPC_PORTS}

    def _log_tail(self, lines: int = 25) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def of_version(models: dict[str, Any], version: str) -> dict[str, Any]:
    """`models` of config.properties for another version. TorchServe looks up batching and workers by version."""
    return {pool: {version: next(iter(versions.values()))} for pool, versions in models.items()}


def require_free(name: str, port: int) -> None:
    """Raise `ServerError` with the setting, the port and, if visible, the program that uses it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServerError(f"{name}: port {port} is taken{_holder(port)}") from error


def _holder(port: int) -> str:
    try:
        listening = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        pid = next(c.pid for c in listening if c.laddr and c.laddr.port == port)
        return f" by {psutil.Process(pid).name()} (process {pid})"
    except (StopIteration, psutil.Error):
        return " by another program"


def require_exported(model_store: Path) -> dict[str, Any]:
    """The manifest of a model store; raises `ServerError` unless its archive has the SHA-256 in the manifest."""
    try:
        manifest: dict[str, Any] = json.loads((model_store / "manifest.json").read_text())
        expected = manifest["artifacts"][ARCHIVE]["sha256"]
        with (model_store / ARCHIVE).open("rb") as archive:
            digest = hashlib.file_digest(archive, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise ServerError(f"{model_store.name}/ contains no exported model; run `python -m export` first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(f"{model_store.name}/manifest.json is damaged; run `python -m export` again") from error
    if digest != expected:
        message = f"{ARCHIVE} was changed after its export: its SHA-256 is {digest}, the manifest says {expected}"
        raise ServerError(message)
    return manifest


def require_trusted(model_store: Path, public_key: Path | None) -> dict[str, Any]:
    """As `require_exported`. With a public key, also raises `ServerError` unless the folder is signed with that key."""
    if public_key:
        # The import takes a second and 50 MB, which only these servers need.
        from serving.signature import SignatureError, require_signed

        try:
            require_signed(model_store, public_key)
        except SignatureError as error:
            raise ServerError(str(error)) from error
    return require_exported(model_store)


def stop_running(run_folder: Path) -> bool:
    """Stop the server that was started with this run folder. Returns False if there is none."""
    pid_file = run_folder / "group.pid"
    if not pid_file.is_file():
        return False
    pid = int(pid_file.read_text())
    pid_file.unlink()
    try:
        if MAIN_CLASS not in psutil.Process(pid).cmdline():
            return False
    except psutil.NoSuchProcess:
        return False
    end_group(pid)
    return True


def end_group(group: int, patience: float = 10) -> None:
    """Terminate every process of a group, and kill those still alive after `patience` seconds."""
    members = group_members(group)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(group, sign)
        except ProcessLookupError:
            return
        _, members = psutil.wait_procs(members, timeout=patience)
        if not members:
            return


def group_members(group: int) -> list[psutil.Process]:
    """The processes of a group."""
    members = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group:
                members.append(process)
        except ProcessLookupError:
            continue
    return members
