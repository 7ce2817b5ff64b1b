"""Locust in separate processes, against the real server and against one that returns wrong responses."""

import csv
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from handler.classes import CODES
from serving.supervisor import ROOT, TorchServe

NAMES = ("predict", "gradcam", "integrated_gradients")
Answer = Callable[[int], dict[str, Any]]
Liar = Callable[[Answer], str]


def objectives(folder: Path, names: tuple[str, ...], milliseconds: float) -> Path:
    path = folder / "slo.toml"
    limits = "".join(f"{quantity} = {milliseconds}\n" for quantity in ("p50", "p95", "p99"))
    path.write_text("".join(f"[{name}]\n{limits}failure_ratio = 0\nmin_requests = 1\n" for name in names))
    return path


def load(host: str, output: Path, slo: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest", "--host", host, "--output", str(output), "--slo", str(slo), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"stats_{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_within_its_objectives_ends_with_0(server: TorchServe, tmp_path: Path) -> None:
    slo = objectives(tmp_path, NAMES[:2], 60_000)
    options = ("--users", "6", "--run-time", "5s", "--shape", "spike", "--pace", "0.1", "--tile-count", "3")
    result = load(server.url, tmp_path, slo, *options, "--tags", *NAMES[:2])
    assert result.returncode == 0, result.stderr + result.stdout
    assert "MISSED" not in result.stdout
    assert rows(tmp_path, "failures") == []
    assert {row["Name"] for row in rows(tmp_path, "stats")} >= {"predict", "gradcam", "Aggregated"}
    assert "<html" in (tmp_path / "report.html").read_text()


def test_a_missed_objective_ends_with_1_and_is_named(server: TorchServe, tmp_path: Path) -> None:
    slo = objectives(tmp_path, NAMES[:1], 0.001)
    options = ("--users", "2", "--run-time", "3s", "--pace", "0.1", "--tile-count", "2", "--tags", "predict")
    result = load(server.url, tmp_path, slo, *options)
    assert {row["Name"] for row in rows(tmp_path, "stats")} == {"predict", "Aggregated"}
    assert result.returncode == 1
    assert [line.split()[:3] for line in result.stdout.splitlines() if "MISSED" in line] == [
        ["MISSED", "predict", quantity] for quantity in ("p50", "p95", "p99")
    ]


def test_objectives_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    result = load("http://127.0.0.1:1", tmp_path, tmp_path / "none.toml")
    assert result.returncode == 1
    assert "none.toml" in result.stderr


@pytest.fixture
def lying_server() -> Iterator[Liar]:
    """Starts a server whose response depends on the client's port, so that it differs between Locust's users."""
    servers = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.respond({"classes": [{"code": code} for code in CODES], "options": {"size": {"default": 224}}})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.respond(answer(self.client_address[1]))

            def respond(self, content: dict[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("X-Request-Id", str(uuid.uuid4()))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(running)
        Thread(target=running.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{running.server_port}"

    yield start
    for running in servers:
        running.shutdown()
        running.server_close()


def of_class(class_id: int, share: float = 0.92) -> dict[str, Any]:
    code = CODES[class_id]
    shares = {name: share if name == code else 0.01 for name in CODES}
    return {"probabilities": shares, "prediction": {"class_id": class_id, "code": code, "probability": share}}


def test_wrong_answers_of_workers_reach_the_masters_report(lying_server: Liar, tmp_path: Path) -> None:
    url = lying_server(lambda port: of_class(8, share=0.5))
    slo = objectives(tmp_path, NAMES, 60_000)
    options = ("--users", "2", "--run-time", "5s", "--pace", "0.05", "--processes", "2", "--tile-count", "2")
    result = load(url, tmp_path, slo, *options)
    assert result.returncode == 1
    assert {row["Error"] for row in rows(tmp_path, "failures")} == {
        "CatchResponseError('probabilities do not sum to 1')"
    }


def test_workers_that_disagree_about_a_tile_are_found_out(lying_server: Liar, tmp_path: Path) -> None:
    """Each worker has one user, which always gets the same class: only the master can detect the difference."""
    seen: dict[int, int] = {}
    url = lying_server(lambda port: of_class(seen.setdefault(port, len(seen))))
    slo = objectives(tmp_path, NAMES, 60_000)
    options = ("--users", "2", "--run-time", "5s", "--pace", "0.05", "--processes", "2", "--tile-count", "1")
    result = load(url, tmp_path, slo, *options)
    assert result.returncode == 1
    assert len(seen) == 2, "one connection for each user"
    assert "1 tiles had different classes at different workers" in result.stdout


def test_shapes_are_shares_of_the_users_over_the_run() -> None:
    script = (
        "from loadtest.shapes import SHAPES\n"
        "for name, shape in SHAPES.items(): print(name, *(round(shape().share(m), 2) for m in (0.02, 0.3, 0.5, 0.9)))"
    )
    # Locust replaces Python's sockets and threads when it is imported.
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    shares = {line.split()[0]: [float(word) for word in line.split()[1:]] for line in result.stdout.splitlines()}
    assert shares == {
        "constant": [1, 1, 1, 1],
        "ramp": [0.02, 0.3, 0.5, 0.9],
        "step": [0.2, 0.4, 0.6, 1],
        "spike": [0.1, 0.1, 1, 0.1],
        "soak": [0.4, 1, 1, 1],
    }
