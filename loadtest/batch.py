"""Compares several images in one request with as many requests at once: `python -m loadtest.batch` prints JSON.

It starts a separate server, or uses the one at `--host`. Both ways alternate, so that other load on the machine affects
them alike. The exit code is 1 if one request takes more than 1.1 times as long, if answers differ by more than float32
rounding, or if a damaged image affects others.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import requests
from requests.adapters import HTTPAdapter

from loadtest.__main__ import ROOT, server
from loadtest.tiles import load_tiles

LARGEST_RATIO = 1.1
# Of a logit, between batches of different sizes in float32.
TOLERANCE = 1e-3
DAMAGED = b"no image"
PATIENCE = 300

Ask = Callable[[list[bytes]], list[dict[str, Any]]]


def in_one_request(url: str) -> Ask:
    """Asks for all images in one form."""
    session = requests.Session()

    def ask(images: list[bytes]) -> list[dict[str, Any]]:
        files = [("data", image) for image in images]
        response = session.post(f"{url}/predictions/pathmnist", files=files, timeout=PATIENCE)
        results: list[dict[str, Any]] = response.json()["results"]
        return results

    return ask


def in_parallel(url: str, pool: ThreadPoolExecutor, connections: int) -> Ask:
    """Asks for each image in a request of its own, all at once, on connections that stay open."""
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=connections))

    def one(image: bytes) -> dict[str, Any]:
        answer: dict[str, Any] = session.post(f"{url}/predictions/pathmnist", data=image, timeout=PATIENCE).json()
        return answer

    return lambda images: list(pool.map(one, images))


def compare(url: str, count: int, rounds: int) -> dict[str, Any]:
    """Median seconds of both ways, their ratio, and how far their answers are apart."""
    images = [tile.image for tile in load_tiles(None, count, seed=0)]
    with ThreadPoolExecutor(count) as pool:
        joined, parallel = in_one_request(url), in_parallel(url, pool, count)
        together, apart = joined(images), parallel(images)
        pairs = [(_seconds(joined, images), _seconds(parallel, images)) for _ in range(rounds)]
        mixed = joined([*images[1:], DAMAGED])
    one, other = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {
        "images": count,
        "rounds": rounds,
        "seconds_in_one_request": round(one, 3),
        "seconds_in_parallel": round(other, 3),
        "ratio": round(statistics.median(first / second for first, second in pairs), 3),
        "largest_difference_of_a_logit": _difference(together, apart),
        "largest_difference_beside_a_damaged_image": _difference(mixed[:-1], apart[1:]),
        "damaged_image": mixed[-1]["error"]["code"],
    }


def problems(report: dict[str, Any]) -> list[str]:
    """The reasons why a comparison failed."""
    found = []
    if report["ratio"] > LARGEST_RATIO:
        found.append(f"one request takes more than {LARGEST_RATIO} times as long")
    if report["largest_difference_of_a_logit"] > TOLERANCE:
        found.append("answers differ")
    if report["largest_difference_beside_a_damaged_image"] > TOLERANCE:
        found.append("a damaged image changes the answers of others")
    return found


def _seconds(ask: Ask, images: list[bytes]) -> float:
    began = time.perf_counter()
    ask(images)
    return time.perf_counter() - began


def _difference(answers: list[dict[str, Any]], others: list[dict[str, Any]]) -> float:
    one, other = (np.array([answer["logits"] for answer in side]) for side in (answers, others))
    return float(np.abs(one - other).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", help="address of a running server")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--model-store", type=Path, default=ROOT / "model_store")
    arguments = parser.parse_args()
    if arguments.host:
        report = compare(arguments.host, arguments.images, arguments.rounds)
    else:
        with server(arguments.model_store) as url:
            report = compare(url, arguments.images, arguments.rounds)
    print(json.dumps(report, indent=2))
    for problem in problems(report):
        print(problem, file=sys.stderr)
    sys.exit(1 if problems(report) else 0)


if __name__ == "__main__":
    main()
