"""The fork server: with scripts in place of TorchServe's worker, and under a real TorchServe."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from serving.frontend import FORKS, WORKER, listen, start_forkserver, worker_environment
from serving.supervisor import TorchServe
from tests.support.processes import worker
from tests.support.waiting import wait_for

pytestmark = pytest.mark.skipif(not FORKS, reason="workers are forked on Linux only")

DESCRIBE = """
import json, os, sys
print(json.dumps({
    "arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ), "path": sys.path,
    "name": __name__, "has_pytorch": "torch" in sys.modules,
}))
print("trouble", file=sys.stderr)
sys.exit(3)
"""
SLEEP = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forks")


@pytest.fixture(scope="module")
def forkserver(temporary: Path) -> Iterator[subprocess.Popen[bytes]]:
    with listen(temporary) as listener, (temporary / "log").open("wb") as log:
        process = start_forkserver(listener, os.environ, log, group=0)
    yield process
    process.kill()
    process.wait()


def start(script: str, temporary: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start a script as TorchServe starts a worker."""
    path = temporary / "script.py"
    path.write_text(script)
    return subprocess.Popen(
        [str(WORKER), str(path), *arguments],
        cwd=temporary,
        env={**worker_environment(temporary), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def started_pid(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def has_ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.usefixtures("forkserver")
def test_a_worker_has_its_arguments_folder_environment_and_streams(temporary: Path) -> None:
    process = start(DESCRIBE, temporary, "--sock-name", "a b", VARIABLE="ü", PYTHONPATH="/first:/second")
    output, errors = process.communicate(timeout=60)
    described = json.loads(output)
    assert described["arguments"] == ["--sock-name", "a b"]
    assert described["folder"] == str(temporary)
    assert described["environment"].items() >= {"VARIABLE": "ü", "PYTHONPATH": "/first:/second"}.items()
    assert "PATH" not in described["environment"]
    assert described["path"][:2] == ["/first", "/second"]
    assert described["name"] == "__main__"
    assert described["has_pytorch"]
    assert errors == "trouble\n"
    assert process.returncode == 1


def test_a_worker_is_named_in_ps(temporary: Path, forkserver: subprocess.Popen[bytes]) -> None:
    process = start(SLEEP, temporary, "--sock-name", "seven")
    started = psutil.Process(started_pid(process))
    assert started.ppid() == forkserver.pid
    assert " ".join(started.cmdline()) == f"{sys.executable} {temporary / 'script.py'} --sock-name seven"
    process.kill()
    process.wait()


@pytest.mark.usefixtures("forkserver")
def test_who_ends_the_proxy_ends_its_worker_alone(temporary: Path) -> None:
    one, other = (start(SLEEP, temporary) for _ in range(2))
    first, second = started_pid(one), started_pid(other)
    one.kill()
    wait_for(lambda: has_ended(first), 10)
    assert not has_ended(second)
    other.terminate()
    wait_for(lambda: has_ended(second), 10)
    for process in (one, other):
        process.wait()


@pytest.mark.usefixtures("forkserver")
def test_the_proxy_ends_with_a_worker_that_crashes(temporary: Path) -> None:
    process = start("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", temporary)
    assert process.wait(30) == 1


def test_a_malformed_request_disturbs_no_one(temporary: Path, forkserver: subprocess.Popen[bytes]) -> None:
    address = worker_environment(temporary)["PATHMNIST_FORKSERVER"]
    before = psutil.Process(forkserver.pid).num_fds()
    for request in (b"{}\n", b"[1]\n", b"no JSON\n", b'{"arguments": []'):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(address)
            socket.send_fds(client, [request], [0, 1, 2, 1])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address)
    process = start(SLEEP, temporary)
    assert psutil.Process(started_pid(process)).ppid() == forkserver.pid
    wait_for(lambda: psutil.Process(forkserver.pid).num_fds() <= before + 1, 10)
    process.kill()
    process.wait()


def test_only_its_user_reaches_the_fork_server(tmp_path: Path) -> None:
    with listen(tmp_path):
        assert Path(worker_environment(tmp_path)["PATHMNIST_FORKSERVER"]).stat().st_mode & 0o777 == 0o600


def test_without_a_fork_server_a_worker_starts_by_itself(tmp_path: Path) -> None:
    listen(tmp_path).close()
    output, _ = start(DESCRIBE, tmp_path, "argument", VARIABLE="x").communicate(timeout=60)
    note, description = output.splitlines()
    assert "the fork server failed" in note
    assert json.loads(description)["arguments"] == ["argument"]
    assert json.loads(description)["environment"]["VARIABLE"] == "x"
    assert not json.loads(description)["has_pytorch"]


def own_memory(process: psutil.Process) -> int:
    """Bytes that no other process shares."""
    used: Any = process.memory_full_info()
    return int(used.uss)


def code_memory(process: psutil.Process) -> int:
    """Resident bytes of code and constants that are as in their files."""
    areas: Any = process.memory_maps(grouped=False)
    files = [area for area in areas if area.path.startswith("/") and area.perms in ("r-xp", "r--p")]
    return sum(area.rss for area in files if not area.anonymous)


@pytest.fixture(scope="module")
def alone() -> Iterator[psutil.Process]:
    """A process that has imported PyTorch by itself."""
    command = [sys.executable, "-c", "import torch, sys; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield psutil.Process(process.pid)
        process.communicate()


def test_workers_share_the_memory_of_pytorch(server: TorchServe, alone: psutil.Process) -> None:
    assert own_memory(worker(server.management_url, "pathmnist-explain")) < own_memory(alone)


def test_the_fork_server_releases_code_that_it_does_not_run(
    temporary: Path, forkserver: subprocess.Popen[bytes], alone: psutil.Process
) -> None:
    process = start(SLEEP, temporary)
    started_pid(process)
    assert code_memory(psutil.Process(forkserver.pid)) < code_memory(alone) / 4
    process.kill()
    process.wait()
