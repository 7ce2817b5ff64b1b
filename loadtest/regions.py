"""How long single predictions take beside a running region, and alone: `python -m loadtest.regions region.png --mpp 4`.

Rounds of both alternate on one running server, so that other load on the machine affects both alike. The region should
take longer than a round.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import requests

TILE = Path(__file__).parents[1] / "docs" / "tile.png"
# Seconds between two predictions.
PAUSE = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("region", type=Path)
    parser.add_argument("--mpp", type=float, help="micrometres per pixel, if the file does not say it")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of each part of a round")
    arguments = parser.parse_args()
    alone, beside = [], []
    for _ in range(arguments.rounds):
        alone += predict(arguments.url, arguments.seconds)
        job = start(arguments.url, arguments.region, arguments.mpp)
        beside += predict(arguments.url, arguments.seconds)
        print(f"tiles of the region: {end(job)}")
    for name, seconds in (("alone", alone), ("beside a region", beside)):
        median, high = 1000 * np.percentile(seconds, [50, 99])
        print(f"{name}: {len(seconds)} predictions, p50 {median:.0f} ms, p99 {high:.0f} ms")


def predict(url: str, duration: float) -> list[float]:
    """The seconds of single predictions, one after the other."""
    found, deadline = [], time.monotonic() + duration
    with requests.Session() as session:
        while time.monotonic() < deadline:
            start = time.perf_counter()
            session.post(f"{url}/predictions/pathmnist", data=TILE.read_bytes(), timeout=60).raise_for_status()
            found.append(time.perf_counter() - start)
            time.sleep(PAUSE)
    return found


def start(url: str, region: Path, mpp: float | None) -> str:
    """The address of a job whose tiles are being classified."""
    options = {} if mpp is None else {"mpp": f"{mpp:g}"}
    body, headers = region.read_bytes(), {"Prefer": "respond-async"}
    response = requests.post(f"{url}/regions/pathmnist", data=body, params=options, headers=headers, timeout=60)
    response.raise_for_status()
    job = url + response.headers["Location"]
    while (state := requests.get(job, timeout=30).json())["progress"]["done"] == 0:
        if state["state"] in ("done", "failed"):
            raise SystemExit(f"the region ended before its first tiles: {state['error']}")
        time.sleep(0.2)
    return job


def end(job: str) -> str:
    """How far a job is; it is deleted."""
    state = requests.get(job, timeout=30).json()
    requests.delete(job, timeout=60).raise_for_status()
    return f"{state['progress']['done']} of {state['progress']['total']}, {state['state']}"


if __name__ == "__main__":
    main()
