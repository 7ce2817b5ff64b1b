"""Measures memory over many requests: `python -m loadtest.soak --requests 6000` prints JSON.

It starts a separate server and sends predictions; every tenth request has a map, and every twentieth is an explanation.
Meanwhile it reads the resident memory of each process. The slope excludes the first fifth, in which caches and heaps
fill.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from loadtest.__main__ import ROOT, server
from loadtest.answers import fault, read_expected, refusal
from loadtest.memory import Memory
from loadtest.tiles import load_tiles

SAMPLES = 40
TILES = 32


class Soak:
    """Requests shared by several users, their failures, and the memory readings."""

    def __init__(self, url: str, total: int, seconds: float) -> None:
        self._url = url
        self._total = total
        self._deadline = time.monotonic() + seconds
        self._tiles = load_tiles(None, TILES, seed=0)
        self._expected = read_expected(url)
        self._lock = threading.Lock()
        self._numbers = iter(range(total))
        self._answered = 0
        self._failures: list[str] = []
        self._memory = Memory()
        self._memory.read(0)

    def ask(self) -> None:
        """Send requests, as one user, until all are sent or the time is up."""
        with requests.Session() as session:
            for number in self._remaining():
                self._note(self._ask(session, number))

    def report(self) -> dict[str, Any]:
        return {
            "requests": self._answered,
            "failures": len(self._failures),
            "reasons": sorted(set(self._failures)),
            "memory": self._memory.to_json(),
        }

    def _remaining(self) -> Iterator[int]:
        while time.monotonic() < self._deadline:
            with self._lock:
                number = next(self._numbers, None)
            if number is None:
                return
            yield number

    def _ask(self, session: requests.Session, number: int) -> str | None:
        """Send one request. Returns the fault of the response, or None if it is correct."""
        verb, option, method = _route(number)
        options, tile = {option: method} if method else {}, self._tiles[number % TILES]
        response = session.post(f"{self._url}/{verb}/pathmnist", params=options, data=tile.image, timeout=120)
        body = response.json()
        if response.status_code != 200:
            return refusal(response.status_code, body)
        return fault(self._expected, body, response.headers.get("X-Request-Id"), method, tile.size)

    def _note(self, failure: str | None) -> None:
        with self._lock:
            self._answered += 1
            if failure:
                self._failures.append(failure)
            if self._answered % max(1, self._total // SAMPLES) == 0:
                self._memory.read(self._answered)


def soak(url: str, total: int, users: int, minutes: float) -> dict[str, Any]:
    """Send `total` requests, `users` at a time, or as many as `minutes` allow. Returns the report."""
    run = Soak(url, total, minutes * 60)
    with ThreadPoolExecutor(users) as pool:
        for user in [pool.submit(run.ask) for _ in range(users)]:
            user.result()
    return run.report()


def _route(number: int) -> tuple[str, str, str | None]:
    """Verb, option and method of a request."""
    if number % 20 == 0:
        return "explanations", "method", "saliency"
    return "predictions", "explain", "gradcam" if number % 10 == 5 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--users", type=int, default=4, help="concurrent requests")
    parser.add_argument("--minutes", type=float, default=60, help="time limit of the run")
    parser.add_argument("--model-store", type=Path, default=ROOT / "model_store")
    arguments = parser.parse_args()
    with server(arguments.model_store) as url:
        report = soak(url, arguments.requests, arguments.users, arguments.minutes)
    print(json.dumps(report, indent=2))
    sys.exit(1 if report["failures"] else 0)


if __name__ == "__main__":
    main()
