"""Classifies by workers on a Ray cluster, or on a Ray of this machine alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from deploy.ray.archive import connect
from regions.answers import Answers
from regions.backend import open_backend
from regions.errors import RegionError
from regions.grid import Tile, grid_of, read_tiles
from regions.job import from_bytes, to_bytes
from regions.run import Classify, Outcome, Unit
from regions.source import Source, open_source

# Blocks of work at most; each has one or more shares.
MAX_BLOCKS = 1000
# The answers for a share (`regions.job.to_bytes`), or the code and sentence of its error.
RESULTS = pa.schema(
    [("unit", pa.int64()), ("answers", pa.large_binary()), ("code", pa.string()), ("error", pa.string())]
)


@dataclass(frozen=True)
class Workers:
    """How many processes at most, each with one core and this many GPUs."""

    count: int
    gpus: float = 0


class Worker:
    """A process with a backend of its own. Converts shares to answers."""

    def __init__(self, archive: Path, server: str | None, model: dict[str, Any]) -> None:
        """Open the backend with the engine of `model`. Raises `RegionError` if another model or engine would answer."""
        self._backend = open_backend(archive, server, model.get("engine"))
        if self._backend.identity() != model:
            raise RegionError("engine_unavailable", f"This node cannot run the engine {model['engine']}.")
        self._opened: tuple[tuple[str, float | None], Source] | None = None

    def __call__(self, units: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._row(unit) for unit in units.to_pylist()], schema=RESULTS)

    def _row(self, unit: dict[str, Any]) -> dict[str, Any]:
        try:
            source = self._source(unit["path"], unit["mpp"])
            tiles = [Tile(row, column) for row, column in zip(unit["rows"], unit["columns"], strict=True)]
            pixels = read_tiles(source, grid_of(source), tiles, unit["read_mpp"])
            return {"unit": unit["unit"], "answers": to_bytes(self._backend.classify(pixels))}
        except RegionError as error:
            return {"unit": unit["unit"], "code": error.code, "error": error.message}

    def _source(self, path: str, mpp: float | None) -> Source:
        """The last source stays open, because the next share is often of the same."""
        if self._opened is None or self._opened[0] != (path, mpp):
            self._opened = (path, mpp), open_source(Path(path), mpp)
        return self._opened[1]


def on_workers(archive: Path, server: str | None, model: dict[str, Any], workers: Workers) -> Classify:
    """Classify by several processes. If one dies, Ray repeats its shares on another.

    Inputs and archive have the same path on every node.
    """

    def classify(units: Iterable[Unit]) -> Iterator[Outcome]:
        known = list(units)
        if not known:
            return
        if not ray.is_initialized():
            connect()
        shares = ray.data.from_items(
            [_item(number, unit) for number, unit in enumerate(known)],
            override_num_blocks=min(len(known), MAX_BLOCKS),
        )
        results = shares.map_batches(
            Worker,
            fn_constructor_args=(archive, server, model),
            batch_format="pyarrow",
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers.count),
            num_cpus=1,
            num_gpus=workers.gpus,
        )
        for row in results.iter_rows():
            yield known[row["unit"]], _outcome(row)

    return classify


def _item(number: int, unit: Unit) -> dict[str, Any]:
    return {
        "unit": number,
        "path": str(unit.job.path),
        "mpp": unit.job.settings.mpp,
        "read_mpp": unit.job.settings.read_mpp,
        "rows": [tile.row for tile in unit.tiles],
        "columns": [tile.column for tile in unit.tiles],
    }


def _outcome(row: dict[str, Any]) -> Answers | RegionError:
    return RegionError(row["code"], row["error"]) if row["code"] else from_bytes(row["answers"])
