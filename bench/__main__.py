"""This server beside others: `python -m bench --output docs/bench` (`make bench`) writes a table as JSON and a plot.

In every round each server is started, loaded by the same closed-loop client with the same images, and stopped. The
report has the medians over the rounds, and this server's figure over each other's with its range over the rounds. Its
files are named after the processor. Nothing else should run meanwhile.
"""

import argparse
import json
import statistics
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from bench.ceiling import Ceiling
from bench.client import Payload, measure
from bench.machine import this_machine
from bench.plot import draw
from bench.systems import SYSTEMS, System, raw, wait_for_answer
from handler.model.backends import BACKENDS, BackendError
from training.checkpoint import write_json
from training.synthetic import generate

CLIENTS = (1, 8, 32, 64)
EXPLAIN_CLIENTS = 4
SIDES = (28, 224, 512, 1024)
BATCHES = (1, 2, 4, 8, 16, 32)
# More than any row explains, so that nothing is answered from the cache.
IMAGES = 256
THIS = SYSTEMS[0].name
IN_PROCESS = "in process"

Row = dict[str, Any]


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
                row["engine"] = engine_of(running.url + system.predict, payloads[0])
                row |= by_side(running.url + system.predict, warm_up, seconds)
    return row


def by_side(url: str, warm_up: float, seconds: float) -> dict[str, float]:
    """Milliseconds of one client's request, by the image's side in pixels."""
    sides = {side: [raw(image) for image in png_files(side, 8)] for side in SIDES}
    loads = {side: measure(url, payloads, 1, warm_up / 2, seconds / 2) for side, payloads in sides.items()}
    return {f"p50_ms at {side} pixels": load.p50_ms for side, load in loads.items()}


def run_ceilings(images: Sequence[bytes]) -> dict[str, float]:
    """Images a second without a server: of each engine that runs here one by one and in batches of eight, and of the
    fastest in all sizes."""
    ceilings = usable_ceilings()
    rates = {
        name: {size: ceiling.images_per_second(images, size) for size in (1, 8)} for name, ceiling in ceilings.items()
    }
    fastest = max(rates, key=lambda name: rates[name][8])
    for size in BATCHES:
        rates[fastest].setdefault(size, ceilings[fastest].images_per_second(images, size))
    return {f"{name}, batch {size}": rate for name, sizes in rates.items() for size, rate in sorted(sizes.items())}


def usable_ceilings() -> dict[str, Ceiling]:
    """Every engine that runs on this machine."""
    ceilings = {}
    for name in BACKENDS:
        try:
            ceilings[name] = Ceiling(name)
        except BackendError as error:
            print(f"{name} is left out: {error}", flush=True)
    return ceilings


def engine_of(url: str, payload: Payload) -> str:
    """The engine that a prediction names."""
    request = urllib.request.Request(url, data=payload.body, headers={"Content-Type": payload.content_type})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["model"]["engine"])


def medians(rounds: Iterable[Row]) -> dict[str, float]:
    """The median of each figure."""
    columns: dict[str, list[float]] = defaultdict(list)
    for row in rounds:
        for name, value in row.items():
            if not isinstance(value, str):
                columns[name].append(value)
    return {name: round(statistics.median(values), 2) for name, values in columns.items()}


def ratios(rounds: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, dict[str, float]]]:
    """This server's figure over each other's in the same round: median and range, where both have one."""
    return {
        name: {key: spread([own[key] / row[key] for own, row in zip(rounds[THIS], rows, strict=True)]) for key in keys}
        for name, rows in rounds.items()
        if name != THIS and (keys := [key for key, value in rows[0].items() if value and key in rounds[THIS][0]])
    }


def engine_share(rounds: Mapping[str, Sequence[Row]], clients: int = 32) -> dict[str, float]:
    """This server's rate over the best rate of an engine in the process, in the same round."""
    own = [row[f"per_second at {clients}"] for row in rounds[THIS]]
    return spread([rate / max(row.values()) for rate, row in zip(own, rounds[IN_PROCESS], strict=True)])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {
        "median": round(statistics.median(values), 2),
        "low": round(min(values), 2),
        "high": round(max(values), 2),
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="of each measurement")
    parser.add_argument("--warm-up", type=float, default=2, help="seconds before each measurement")
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="some of: " + "; ".join(s.name for s in SYSTEMS))
    parser.add_argument("--output", type=Path, default=Path("runs/bench"), help="folder for the report and its plot")
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> dict[str, list[Row]]:
    """The rows of all rounds, by system."""
    images = png_files(224, IMAGES)
    systems = [s for s in SYSTEMS if not arguments.systems or s.name in (THIS, *arguments.systems)]
    rounds: dict[str, list[Row]] = defaultdict(list)
    for _ in range(arguments.rounds):
        rounds[IN_PROCESS].append(run_ceilings(images))
        for system in systems:
            rounds[system.name].append(run_system(system, images, arguments.warm_up, arguments.seconds))
            print(system.name, json.dumps(rounds[system.name][-1]), flush=True)
    return rounds


def main() -> None:
    arguments = parse_arguments()
    machine, rounds = this_machine(), run(arguments)
    table = {name: medians(rows) for name, rows in rounds.items()}
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": asdict(machine),
        "engine": rounds[THIS][-1]["engine"],
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "medians": table,
        "ratios": ratios(rounds),
        "share_of_the_engine": engine_share(rounds),
    }
    write_json(arguments.output / f"{machine.slug}.json", report)
    draw(table, arguments.output / f"{machine.slug}.svg")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
