"""Does memory grow with the number of requests? `python -m loadtest.soak --requests 6000` prints JSON.

It starts a server of its own, sends predictions, every tenth with a map and every twentieth an explanation, and reads
the resident memory of each process as it goes. The first fifth, in which caches and heaps fill, is not in the slope.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests

from loadtest.__main__ import ROOT, server
from loadtest.answers import fault, refusal
from loadtest.tiles import load_tiles

SAMPLES = 40
WARM_UP = 0.2
MIB = 2**20
# A part of each process's command line, and what the report calls it; a worker has its own number there.
PROCESSES = {
    "model_service_worker.py": "worker",
    "org.pytorch.serve.ModelServer": "frontend",
    "serving.gateway": "edge",
}


@dataclass
class Memory:
    """Resident MiB of the server's processes, by name, each time with the requests answered until then."""

    requests: list[int] = field(default_factory=list)
    resident: dict[str, list[float]] = field(default_factory=dict)

    def read(self, answered: int) -> None:
        self.requests.append(answered)
        for name, process in _server_processes():
            self.resident.setdefault(name, []).append(process.memory_info().rss / MIB)

    def to_json(self) -> dict[str, Any]:
        """By process: MiB at the start, after the warm-up and at the end, and the slope since in MiB a thousand
        requests."""
        first = sum(moment < WARM_UP * self.requests[-1] for moment in self.requests)
        report = {}
        for name, sizes in sorted(self.resident.items()):
            slope = np.polyfit(self.requests[first:], sizes[first:], 1)[0] * 1000
            report[name] = {
                "start_mib": round(sizes[0], 1),
                "warm_mib": round(sizes[first], 1),
                "end_mib": round(sizes[-1], 1),
                "slope_mib_per_1000": round(float(slope), 3),
            }
        return report


def _server_processes() -> Iterator[tuple[str, psutil.Process]]:
    for process in psutil.Process().children(recursive=True):
        command = " ".join(process.cmdline())
        for part, name in PROCESSES.items():
            if part in command:
                number = command.partition(".ts.sock.")[2][:4]
                yield f"{name} {number}".strip(), process


def soak(url: str, total: int, users: int, minutes: float) -> dict[str, Any]:
    """Send `total` requests, `users` at a time, or what `minutes` allow; returns the report."""
    tiles = load_tiles(None, 32, seed=0)
    memory, failures, numbers = Memory(), list[str](), iter(range(total))
    deadline = time.monotonic() + minutes * 60
    turn = threading.Lock()
    answered = 0

    def work() -> None:
        nonlocal answered
        with requests.Session() as session:
            while time.monotonic() < deadline:
                with turn:
                    number = next(numbers, None)
                if number is None:
                    return
                reason = _ask(session, url, number, tiles[number % len(tiles)].image)
                with turn:
                    answered += 1
                    failures.extend([reason] if reason else [])
                    if answered % max(1, total // SAMPLES) == 0:
                        memory.read(answered)

    memory.read(0)
    with ThreadPoolExecutor(users) as pool:
        for future in [pool.submit(work) for _ in range(users)]:
            future.result()
    return {
        "requests": answered,
        "failures": len(failures),
        "reasons": sorted(set(failures)),
        "memory": memory.to_json(),
    }


def _ask(session: requests.Session, url: str, number: int, tile: bytes) -> str | None:
    """Send one request; returns why its answer is wrong, None where it is right."""
    verb, method = _question(number)
    options = {"method" if verb == "explanations" else "explain": method} if method else {}
    response = session.post(f"{url}/{verb}/pathmnist", params=options, data=tile, timeout=120)
    body = response.json()
    if response.status_code != 200:
        return refusal(response.status_code, body)
    return fault(body, response.headers.get("X-Request-Id"), method)


def _question(number: int) -> tuple[str, str | None]:
    if number % 20 == 0:
        return "explanations", "saliency"
    return "predictions", "gradcam" if number % 10 == 5 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--users", type=int, default=4, help="requests under way at a time")
    parser.add_argument("--minutes", type=float, default=60, help="the end, also where requests are left")
    parser.add_argument("--model-store", type=Path, default=ROOT / "model_store")
    arguments = parser.parse_args()
    with server(arguments.model_store) as url:
        report = soak(url, arguments.requests, arguments.users, arguments.minutes)
    print(json.dumps(report, indent=2))
    sys.exit(1 if report["failures"] else 0)


if __name__ == "__main__":
    main()
