"""Fuzzes a server with malformed requests: `python -m loadtest.fuzz --requests 10000` prints JSON.

It starts a separate server and sends malformed requests (mutations.py), while a second client sends valid
requests, which must stay correct and fast. The exit code is 1 if

- a response was a 5xx or an error of another form,
- a valid request got a wrong, slow or no response, or
- a worker's memory grew by more than 5 %.

`--only NUMBER` sends one request and prints the response.
"""

import argparse
import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import requests

from loadtest.__main__ import ROOT, server
from loadtest.answers import Expected, fault, read_expected, refusal
from loadtest.memory import resident
from loadtest.mutations import Mutation, mutation
from loadtest.tiles import Tile, load_tiles

WARM_UP = 200
# Seconds between two valid requests.
PACE = 0.1
# Time limit for a response in seconds, and for one to an incomplete HTTP request, which may never come.
PATIENCE, SHORT_PATIENCE = 60, 2
SLOWEST = 2.0
GROWTH = 0.05
NO_ANSWER = "no answer"


@dataclass(frozen=True)
class Outcome:
    """The response to a malformed request: its status, and the reason if it is a failure."""

    status: int | str
    failure: str | None = None
    body: bytes = b""


@dataclass
class Good:
    """The requests of a client that sends valid requests."""

    url: str
    tile: Tile
    expected: Expected
    requests: int = 0
    slowest: float = 0
    failures: list[str] = field(default_factory=list)
    logits: list[float] = field(default_factory=list)

    def ask(self) -> None:
        """Send one request, every second one with a map. Records its latency and any fault of the response."""
        method = "gradcam" if self.requests % 2 else None
        began = time.monotonic()
        try:
            failure = self._fault(method)
        except requests.RequestException as error:
            failure = type(error).__name__
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.requests += 1
        if failure:
            self.failures.append(failure)

    def _fault(self, method: str | None) -> str | None:
        options = {"explain": method} if method else {}
        url = f"{self.url}/predictions/pathmnist"
        response = requests.post(url, params=options, data=self.tile.image, timeout=PATIENCE)
        body = response.json()
        if response.status_code != 200:
            return refusal(response.status_code, body)
        self.logits = self.logits or body["logits"]
        if not np.allclose(body["logits"], self.logits, atol=1e-3):
            return "logits differ from the first answer"
        return fault(self.expected, body, response.headers.get("X-Request-Id"), method, self.tile.size)

    def to_json(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "slowest_seconds": round(self.slowest, 3),
            "failures": Counter(self.failures),
        }


def send(url: str, request: Mutation) -> Outcome:
    """Send raw bytes on a new connection."""
    address = urlsplit(url)
    try:
        with socket.create_connection((address.hostname, address.port), timeout=PATIENCE) as connection:
            connection.settimeout(PATIENCE if request.answered else SHORT_PATIENCE)
            connection.sendall(request.data)
            response = HTTPResponse(connection)
            response.begin()
            return _outcome(response)
    except (OSError, HTTPException) as error:
        # A server that refuses a request early closes the connection, possibly before its response is read.
        failure = f"{NO_ANSWER}: {type(error).__name__}" if request.answered else None
        return Outcome(NO_ANSWER, failure)


def _outcome(response: HTTPResponse) -> Outcome:
    body = response.read()
    if response.status < 400:
        return Outcome(response.status, None, body)
    if response.status >= 500:
        return Outcome(response.status, f"status {response.status}", body)
    if "X-Request-Id" not in response.headers:
        return Outcome(response.status, "an error without an id", body)
    try:
        formed = not body or set(json.loads(body)["error"]) == {"code", "message", "field"}
    except (ValueError, KeyError, TypeError):
        formed = False
    return Outcome(response.status, None if formed else "an error of another form", body)


class Fuzz:
    """Malformed and valid requests, and the memory before and after."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._seed = seed
        self._good = Good(url, load_tiles(None, 1, seed)[0], read_expected(url))
        self._statuses: Counter[str] = Counter()
        self._failures: dict[int, str] = {}

    def run(self, total: int, users: int) -> dict[str, Any]:
        """Send `total` malformed requests, `users` at a time. Returns the report."""
        self._send(range(-WARM_UP, 0), users)
        self._statuses.clear()
        before = resident()
        began = time.monotonic()
        self._send(range(total), users)
        after = resident()
        return {
            "requests": total,
            "seed": self._seed,
            "seconds": round(time.monotonic() - began, 1),
            "statuses": dict(sorted(self._statuses.items())),
            "5xx": sum(failure.startswith("status 5") for failure in self._failures.values()),
            "failures": {str(number): failure for number, failure in sorted(self._failures.items())},
            "good": self._good.to_json(),
            "memory_mib": {name: [round(before[name], 1), round(after.get(name, 0), 1)] for name in sorted(before)},
        }

    def _send(self, numbers: range, users: int) -> None:
        ended = threading.Event()
        with ThreadPoolExecutor(users + 1) as pool:
            good = pool.submit(self._ask_good, ended)
            try:
                for number, outcome in zip(numbers, pool.map(self._attempt, numbers), strict=True):
                    self._statuses[str(outcome.status)] += 1
                    if outcome.failure:
                        self._failures[number] = outcome.failure
            finally:
                ended.set()
            good.result()

    def _attempt(self, number: int) -> Outcome:
        return send(self._url, mutation(self._seed, number % 2**32))

    def _ask_good(self, ended: threading.Event) -> None:
        while not ended.wait(PACE):
            self._good.ask()


def problems(report: dict[str, Any]) -> Iterator[str]:
    """The reasons why a run failed."""
    if report["failures"]:
        yield f"{len(report['failures'])} malformed requests had a wrong response"
    if report["good"]["failures"]:
        yield "valid requests failed"
    if report["good"]["slowest_seconds"] > SLOWEST:
        yield f"a valid request took longer than {SLOWEST:g} s"
    for name, (before, after) in report["memory_mib"].items():
        if name.startswith("worker") and not abs(after - before) <= GROWTH * before:
            yield f"the memory of {name} changed by more than {GROWTH:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--users", type=int, default=2, help="concurrent malformed requests")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="send only the request of this number and print the response")
    parser.add_argument("--model-store", type=Path, default=ROOT / "model_store")
    arguments = parser.parse_args()
    with server(arguments.model_store) as url:
        if arguments.only is not None:
            print(send(url, mutation(arguments.seed, arguments.only)))
            return
        report = Fuzz(url, arguments.seed).run(arguments.requests, arguments.users)
    report["problems"] = list(problems(report))
    print(json.dumps(report, indent=2))
    sys.exit(1 if report["problems"] else 0)


if __name__ == "__main__":
    main()
