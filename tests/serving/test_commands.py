"""`python -m serving start` and `stop`, as `make serve` and `make stop` call them."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from serving.frontend import FORKS
from serving.gateway.settings import ROOT, read_properties, write_properties
from serving.ports import ADDRESSES, free_addresses
from serving.supervisor import ServerError, require_free
from tests.conftest import pool_settings
from tests.serving.conftest import copy_store
from tests.support.processes import worker
from tests.support.waiting import wait_for

Start = tuple[subprocess.Popen[str], Path]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    settings = read_properties(ROOT / "config.properties") | free_addresses() | {"models": pool_settings()}
    path = tmp_path / "config.properties"
    write_properties(settings, path)
    return path


def command(action: str, config: Path, model_store: Path) -> list[str]:
    folders = ["--model-store", str(model_store), "--run-folder", str(config.parent / "run")]
    return [sys.executable, "-m", "serving", action, "--config", str(config), *folders]


@pytest.fixture
def started(config: Path, model_store: Path) -> Iterator[subprocess.Popen[str]]:
    """A started server that has printed ready."""
    process = subprocess.Popen(
        command("start", config, model_store),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell script inherits that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith("ready: http://127.0.0.1:")
        yield process
    finally:
        process.terminate()
        process.wait(30)


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def assert_all_end(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert alive == []


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_process(sign: signal.Signals, started: subprocess.Popen[str], config: Path) -> None:
    children = descendants(started)
    assert len(children) >= 4, "command line, Java frontend, one worker and the edge"
    os.kill(started.pid, sign)
    started.wait(30)
    assert_all_end(children)
    for name in ADDRESSES:
        require_free(name, int(read_properties(config)[name].rsplit(":", 1)[1]))


def test_stop_ends_a_server_started_elsewhere(started: subprocess.Popen[str], config: Path, model_store: Path) -> None:
    children = descendants(started)
    result = subprocess.run(command("stop", config, model_store), cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "stopped\n"
    assert_all_end(children)
    started.wait(30)
    again = subprocess.run(command("stop", config, model_store), cwd=ROOT, capture_output=True, text=True, check=True)
    assert again.stdout == "no server is running\n"


def test_without_its_edge_the_server_ends(started: subprocess.Popen[str]) -> None:
    children = descendants(started)
    (edge,) = [child for child in children if "serving.gateway" in child.cmdline()]
    edge.kill()
    started.wait(30)
    assert_all_end(children)


def test_a_ready_server_has_answered(started: subprocess.Popen[str], config: Path) -> None:
    address = read_properties(config)["edge_address"]
    tile = (ROOT / "docs" / "tile.png").read_bytes()
    assert requests.post(f"{address}/predictions/pathmnist", data=tile, timeout=30).status_code == 200


@pytest.mark.skipif(not FORKS, reason="workers are forked on Linux only")
def test_without_its_fork_server_a_server_serves_and_restarts_workers(
    started: subprocess.Popen[str], config: Path
) -> None:
    address = read_properties(config)["edge_address"]
    tile = (ROOT / "docs" / "tile.png").read_bytes()

    def answers() -> bool:
        return requests.post(f"{address}/predictions/pathmnist", data=tile, timeout=60).status_code == 200

    children = descendants(started)
    killed = worker(read_properties(config)["management_address"])
    (forkserver,) = [child for child in children if child.pid == killed.ppid()]
    forkserver.kill()
    wait_for(lambda: forkserver.status() == psutil.STATUS_ZOMBIE)
    assert answers()
    killed.kill()
    wait_for(answers)
    assert "the fork server failed" in (config.parent / "run" / "torchserve.log").read_text()
    started.terminate()
    started.wait(30)
    assert_all_end(children)


def test_a_busy_port_is_named(config: Path, model_store: Path) -> None:
    port = int(read_properties(config)["metrics_address"].rsplit(":", 1)[1])
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        result = subprocess.run(command("start", config, model_store), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0
    assert f"metrics_address: port {port} is taken by" in result.stderr
    assert f"process {os.getpid()}" in result.stderr


def test_an_empty_model_store_is_named(config: Path, tmp_path: Path) -> None:
    result = subprocess.run(command("start", config, tmp_path), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0
    assert "python -m export" in result.stderr


def test_a_model_that_cannot_load_is_reported_and_leaves_no_process(config: Path, model_store: Path) -> None:
    store = config.parent / "broken"
    store.mkdir()
    copy_store(model_store, store, lambda text: text.replace("min_side", "no_such_limit"))
    before = time.monotonic()
    script = (
        "import sys; from pathlib import Path; from serving.supervisor import TorchServe\n"
        "with TorchServe(*map(Path, sys.argv[1:])) as server: server.wait_until_ready(20)"
    )
    arguments = [sys.executable, "-c", script, str(config), str(store), str(config.parent / "run")]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode != 0
    assert "ServerError" in result.stderr
    assert time.monotonic() - before < 60
    require_free("inference_address", int(read_properties(config)["inference_address"].rsplit(":", 1)[1]))


@pytest.mark.parametrize("change", ["one bit", "cut short", "other digest", "no digest"])
def test_a_changed_archive_is_refused(change: str, config: Path, model_store: Path) -> None:
    store = config.parent / "changed"
    store.mkdir()
    archive = bytearray((model_store / "pathmnist.mar").read_bytes())
    manifest = (model_store / "manifest.json").read_text()
    match change:
        case "one bit":
            archive[len(archive) // 2] ^= 1
        case "cut short":
            del archive[-1000:]
        case "other digest":
            manifest = manifest.replace(hashlib.sha256(archive).hexdigest(), "0" * 64)
        case "no digest":
            manifest = "{}"
    (store / "pathmnist.mar").write_bytes(archive)
    (store / "manifest.json").write_text(manifest)
    result = subprocess.run(command("start", config, store), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    expected = "manifest.json is damaged" if change == "no digest" else "pathmnist.mar was changed after its export"
    assert expected in result.stderr
    assert not (config.parent / "run").exists()


def test_a_free_port_is_free() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(ServerError, match=str(port)):
            require_free("inference_address", port)
    require_free("inference_address", port)


def test_page_says_the_address_of_a_running_server(
    started: subprocess.Popen[str], config: Path, model_store: Path
) -> None:
    environment = {**os.environ, "BROWSER": "true"}
    page = subprocess.run(
        command("page", config, model_store), cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    address = page.stdout.removeprefix("page: ").strip()
    assert "<title>PathMNIST XAI</title>" in requests.get(address, timeout=10).text


def test_page_says_how_to_start_a_server_that_is_not_running(config: Path, model_store: Path) -> None:
    page = subprocess.run(command("page", config, model_store), cwd=ROOT, capture_output=True, text=True)
    assert page.returncode == 1
    assert "`make serve`" in page.stderr
