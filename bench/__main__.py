"""This server beside others: `python -m bench --output docs/bench` (`make bench`) writes a table as JSON and a plot.

In every round each server is started, loaded by the same closed-loop client with the same images, and stopped. What is
reported are medians over the rounds, and ratios to this server of the medians. Nothing else should run meanwhile.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from bench.ceiling import Ceiling
from bench.client import measure
from bench.plot import draw
from bench.systems import SYSTEMS, System, raw, wait_for_answer
from training.checkpoint import write_json
from training.synthetic import generate

CLIENTS = (1, 8, 32, 64)
EXPLAIN_CLIENTS = 4
SIDES = (28, 224, 512, 1024)
BACKENDS = ("mnn", "onnxruntime", "torch")
BATCHES = (1, 2, 4, 8, 16, 32)
# More than any row explains, so that nothing is answered from the cache.
IMAGES = 256
THIS = SYSTEMS[0].name


def png_files(side: int, count: int) -> list[bytes]:
    """Generated tiles, enlarged, as PNG files."""
    files = []
    for tile in generate(count, seed=5).images:
        buffer = BytesIO()
        Image.fromarray(tile).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def run_system(system: System, images: Sequence[bytes], warm_up: float, seconds: float) -> dict[str, Any]:
    """One round of one server, as a flat table."""
    payloads = [system.encode(image) for image in images]
    row: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with contextmanager(system.start)(Path(folder)) as running:
            wait_for_answer(running.url + system.predict, payloads[0])
            row["start_seconds"] = time.perf_counter() - start
            for clients in CLIENTS:
                load = measure(running.url + system.predict, payloads, clients, warm_up, seconds)
                row |= {f"{name} at {clients}": value for name, value in asdict(load).items()}
            row["memory_mb"] = running.memory_mb()
            for what, path in system.explain.items():
                load = measure(running.url + path, payloads, EXPLAIN_CLIENTS, warm_up, 5 * seconds)
                row |= {f"{what}: {name}": value for name, value in asdict(load).items()}
            if system.name == THIS:
                row |= by_side(running.url + system.predict, warm_up, seconds)
    return row


def by_side(url: str, warm_up: float, seconds: float) -> dict[str, float]:
    """Milliseconds of one client's request, by the image's side in pixels."""
    sides = {side: [raw(image) for image in png_files(side, 8)] for side in SIDES}
    loads = {side: measure(url, payloads, 1, warm_up / 2, seconds / 2) for side, payloads in sides.items()}
    return {f"p50_ms at {side} pixels": load.p50_ms for side, load in loads.items()}


def run_ceilings(images: Sequence[bytes]) -> dict[str, float]:
    """Images a second without a server, by backend, and of the fastest by batch size."""
    row: dict[str, float] = {}
    for backend in BACKENDS:
        ceiling = Ceiling(backend)
        sizes = BATCHES if backend == BACKENDS[0] else (1, 8)
        row |= {f"{backend}, batch {size}": ceiling.images_per_second(images, size) for size in sizes}
    return row


def medians(rounds: Iterable[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    columns = defaultdict(list)
    for row in rounds:
        for name, value in row.items():
            columns[name].append(value)
    return {name: round(statistics.median(values), 2) for name, values in columns.items()}


def ratios(table: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """This server's figures over each other's, where both have one."""
    own = table[THIS]
    return {
        name: {key: round(own[key] / value, 2) for key, value in row.items() if key in own and value}
        for name, row in table.items()
        if name != THIS and row.keys() & own.keys()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument("--warm-up", type=float, default=2, help="seconds before each measurement")
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="some of: " + "; ".join(s.name for s in SYSTEMS))
    parser.add_argument("--output", type=Path, default=Path("runs/bench"), help="folder for bench.json and bench.svg")
    arguments = parser.parse_args()
    images = png_files(224, IMAGES)
    systems = [s for s in SYSTEMS if not arguments.systems or s.name in (THIS, *arguments.systems)]
    rounds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _ in range(arguments.rounds):
        rounds["in process"].append(run_ceilings(images))
        for system in systems:
            rounds[system.name].append(run_system(system, images, arguments.warm_up, arguments.seconds))
            print(system.name, json.dumps(rounds[system.name][-1]), flush=True)
    table = {name: medians(rows) for name, rows in rounds.items()}
    report = {
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform()},
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "medians": table,
        "ratios": ratios(table),
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output / "bench.json", report)
    draw(table, arguments.output / "bench.svg")
    print(json.dumps(report, indent=2))


def processor() -> str:
    """The processor's name as Linux gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
