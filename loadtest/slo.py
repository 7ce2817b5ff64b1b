"""Service level objectives: read from a TOML file, checked after a run."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


class SloError(ValueError):
    """The file of objectives is invalid."""


@dataclass(frozen=True)
class Objective:
    """The limits for requests of one name. Times are in milliseconds."""

    p50: float
    p95: float
    p99: float
    failure_ratio: float
    min_requests: int


@dataclass(frozen=True)
class Measured:
    """The measurements of a run for requests of one name."""

    p50: float = 0
    p95: float = 0
    p99: float = 0
    failure_ratio: float = 0
    min_requests: int = 0


@dataclass(frozen=True)
class Verdict:
    """One objective, and whether it was met."""

    name: str
    quantity: str
    limit: float
    measured: float

    @property
    def kept(self) -> bool:
        return self.measured >= self.limit if self.quantity == "min_requests" else self.measured <= self.limit

    def __str__(self) -> str:
        relation = ">=" if self.quantity == "min_requests" else "<="
        state = "kept" if self.kept else "MISSED"
        return f"{state:6}  {self.name:22} {self.quantity:14} {self.measured:10.4g} {relation} {self.limit:g}"


def read_objectives(path: Path) -> dict[str, Objective]:
    """Objectives by request name. Raises `SloError` if one is incomplete or has an unknown key."""
    try:
        tables = tomllib.loads(path.read_text())
        objectives = {name: Objective(**table) for name, table in tables.items()}
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise SloError(f"{path.name}: {error}") from error
    if not objectives:
        raise SloError(f"{path.name} contains no objective")
    return objectives


def judge(objectives: Mapping[str, Objective], measured: Mapping[str, Measured]) -> Iterator[Verdict]:
    """Compare every objective with the measurements. A name without requests misses its `min_requests`."""
    for name, objective in objectives.items():
        values = asdict(measured.get(name, Measured()))
        for quantity, limit in asdict(objective).items():
            yield Verdict(name, quantity, limit, values[quantity])
