"""Locust's entry point: requests, checks of responses, and the exit code.

`python -m locust -f loadtest/locustfile.py --host URL`; `docs/load.md` has the options.
"""

import random
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, ClassVar

from locust import FastHttpUser, constant_pacing, events, tag, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.runners import WorkerRunner
from locust.stats import RequestStats, StatsEntry
from requests import RequestException

from client import ServerError
from loadtest import shapes
from loadtest.answers import Expected, Ledger, fault, read_expected, refusal
from loadtest.slo import Measured, SloError, judge, read_objectives
from loadtest.tiles import Tile, TilesError, load_tiles

# Requests of each name out of ten.
MIX = {"predict": 6, "gradcam": 3, "integrated_gradients": 1}
TOLERANCE = 0.07


class TileUser(FastHttpUser):
    """Sends one tile every --pace seconds, or as soon as the answer arrives if that takes longer."""

    tiles: ClassVar[list[Tile]] = []
    ledger: ClassVar[Ledger] = Ledger()
    expected: ClassVar[Expected]

    def wait_time(self) -> float:
        return constant_pacing(_options(self.environment).pace)(self)

    @tag("predict")
    @task(MIX["predict"])
    def predict(self) -> None:
        self._ask("predict", "/predictions/pathmnist", None)

    @tag("gradcam")
    @task(MIX["gradcam"])
    def gradcam(self) -> None:
        self._ask("gradcam", "/predictions/pathmnist?explain=gradcam", "gradcam")

    @tag("integrated_gradients")
    @task(MIX["integrated_gradients"])
    def integrated_gradients(self) -> None:
        # The server caches maps by tile and parameters; a unique tolerance bypasses the cache.
        tolerance = TOLERANCE * random.uniform(0.999, 1.001)
        path = f"/explanations/pathmnist?method=integrated_gradients&tolerance={tolerance:.9f}"
        self._ask("integrated_gradients", path, "integrated_gradients")

    def _ask(self, name: str, path: str, method: str | None) -> None:
        tile = random.choice(self.tiles)
        headers = {"Content-Type": "application/octet-stream"}
        # Locust's annotation omits bytes, which are sent unchanged.
        body: Any = tile.image
        with self.client.post(path, data=body, headers=headers, name=name, catch_response=True) as response:
            if reason := self._reason(response, tile, method):
                response.failure(reason)

    def _reason(self, response: Any, tile: Tile, method: str | None) -> str | None:
        """The reason if a response is a failure, otherwise None."""
        if response.status_code == 0:
            return "no answer"
        try:
            body = response.json()
        except ValueError:
            return f"{response.status_code} without JSON"
        if response.status_code != 200:
            return refusal(response.status_code, body)
        if reason := fault(self.expected, body, response.headers.get("X-Request-Id"), method, tile.size):
            return reason
        agrees = self.ledger.agrees(tile.key, body["prediction"]["code"])
        return None if agrees else "class differs from the first answer"


def add_options(parser: LocustArgumentParser, **_: Any) -> None:
    group = parser.add_argument_group("PathMNIST options")
    group.add_argument(
        "--shape", choices=list(shapes.SHAPES), default="constant", help="number of active users over time"
    )
    group.add_argument("--pace", type=float, default=1, help="seconds between a user's requests")
    group.add_argument(
        "--tiles", default="", help="folder of images, also in subfolders, or MedMNIST's .npz; default: generated"
    )
    group.add_argument("--tile-count", type=int, default=64)
    group.add_argument("--seed", type=int, default=0, help="seed that selects the tiles")
    group.add_argument("--slo", default=str(Path(__file__).parent / "slo.toml"), help="TOML file of objectives")


def choose_shape(environment: Environment, **_: Any) -> None:
    options = _options(environment)
    try:
        read_objectives(Path(options.slo))
        _tiles(options)
        read_expected(options.host)
    except (SloError, TilesError, ServerError, RequestException) as error:
        sys.exit(f"loadtest: {error}")
    environment.shape_class = shapes.SHAPES[options.shape]()
    environment.shape_class.runner = environment.runner


def prepare(environment: Environment, **_: Any) -> None:
    """Runs in every process, after a worker has received the master's options."""
    options = _options(environment)
    TileUser.tiles = _tiles(options)
    TileUser.expected = read_expected(options.host)
    TileUser.ledger = Ledger()


def send_classes(client_id: str, data: dict[str, Any]) -> None:
    data["classes"] = TileUser.ledger.take_unsent()


def compare_classes(client_id: str, data: dict[str, Any]) -> None:
    TileUser.ledger.merge(data.get("classes", {}))


def conclude(environment: Environment, **_: Any) -> None:
    """Print the objectives that were met and missed. The exit code is 1 if any was missed."""
    runner = environment.runner
    if runner is None or isinstance(runner, WorkerRunner):
        return
    objectives = read_objectives(Path(_options(environment).slo))
    verdicts = list(judge(objectives, measure(runner.stats)))
    print("\nService level objectives (times in ms)")
    print(*verdicts, sep="\n")
    if TileUser.ledger.conflicts:
        print(f"MISSED  {TileUser.ledger.conflicts} tiles had different classes at different workers")
    if runner.exceptions:
        print(f"MISSED  {len(runner.exceptions)} kinds of exception in the load test itself")
    kept = all(verdict.kept for verdict in verdicts) and not TileUser.ledger.conflicts and not runner.exceptions
    environment.process_exit_code = 0 if kept else 1


def measure(stats: RequestStats) -> dict[str, Measured]:
    return {name: _measured(entry) for (name, _), entry in stats.entries.items()}


def _measured(entry: StatsEntry) -> Measured:
    p50, p95, p99 = (entry.get_response_time_percentile(share) for share in (0.5, 0.95, 0.99))
    return Measured(p50, p95, p99, entry.fail_ratio, entry.num_requests)


def _tiles(options: Namespace) -> list[Tile]:
    return load_tiles(Path(options.tiles) if options.tiles else None, options.tile_count, options.seed)


def _options(environment: Environment) -> Namespace:
    assert environment.parsed_options is not None
    return environment.parsed_options


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(choose_shape)
events.test_start.add_listener(prepare)
events.report_to_master.add_listener(send_classes)
events.worker_report.add_listener(compare_classes)
events.quitting.add_listener(conclude)
