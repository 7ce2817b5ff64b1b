"""Maps a list of inputs: opens them, classifies the missing shares, and writes each map when it is complete."""

import os
import platform
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import openslide

from regions.answers import Answers
from regions.backend import Backend
from regions.errors import RegionError
from regions.grid import Tile, read_tiles
from regions.job import Job, Run
from regions.progress import Progress
from regions.source import Pixels

PACKAGES = ("numpy", "openslide-bin", "openslide-python", "openvino", "pillow", "shapely", "tifffile", "torch")
# Threads that read, and shares that are read ahead of the one that is classified.
READERS, AHEAD = 2, 4


@dataclass(frozen=True, eq=False)
class Unit:
    """A share of a job's tiles."""

    job: Job
    number: int
    tiles: Sequence[Tile]

    def read(self) -> Pixels:
        return read_tiles(self.job.source, self.job.grid, self.tiles, self.job.settings.read_mpp)


# Classifies units: the answers in any order, or the error of a unit that has none.
Outcome = tuple[Unit, Answers | RegionError]
Classify = Callable[[Iterable[Unit]], Iterator[Outcome]]


def run(paths: Sequence[Path], output: Path, common: Run, classify: Classify, progress: Progress) -> None:
    """Write the map of every path into a folder of its own in `output`.

    An input that fails does not affect the others. Maps that exist are left as they are, and answers that an earlier
    run kept are used.
    """
    failed = set()
    for unit, outcome in classify(_units(_open(paths, output, common, progress), progress)):
        if unit.job in failed:
            continue
        error = _keep(unit, outcome, progress)
        if error is not None:
            failed.add(unit.job)
            progress.fail(unit.job.path, error)


def _open(paths: Sequence[Path], output: Path, common: Run, progress: Progress) -> list[Job]:
    jobs = []
    for path in paths:
        try:
            job = Job(path, output, common)
        except RegionError as error:
            progress.fail(path, error)
            continue
        progress.expect(job.grid.rows * job.grid.columns)
        jobs.append(job)
    return jobs


def _units(jobs: Sequence[Job], progress: Progress) -> Iterator[Unit]:
    """The shares without answers, job by job. A job is prepared when it is reached."""
    for job in jobs:
        try:
            missing = _prepare(job, progress)
        except RegionError as error:
            progress.fail(job.path, error)
            continue
        for number in missing:
            yield Unit(job, number, job.shares[number])


def _prepare(job: Job, progress: Progress) -> list[int]:
    """The numbers of the shares to classify; none if the map exists. Raises `RegionError`."""
    size = job.grid.rows * job.grid.columns
    if job.is_done():
        progress.advance(size)
        return []
    job.prepare()
    missing = job.missing()
    progress.advance(size - sum(job.weight(number) for number in missing))
    if not missing:
        job.finish()
    return missing


def _keep(unit: Unit, outcome: Answers | RegionError, progress: Progress) -> RegionError | None:
    """Store the answers of a unit, and write the map if they were the last ones; the error if there is one."""
    if isinstance(outcome, RegionError):
        return outcome
    unit.job.keep(unit.number, outcome)
    progress.advance(unit.job.weight(unit.number))
    try:
        if not unit.job.missing():
            unit.job.finish()
    except RegionError as error:
        return error
    return None


def in_this_process(backend: Backend) -> Classify:
    """Classify here; threads read ahead."""

    def classify(units: Iterable[Unit]) -> Iterator[Outcome]:
        with ThreadPoolExecutor(READERS, initializer=_leave_cores_to_the_engine) as readers:
            reading = []
            for unit in units:
                reading.append((unit, readers.submit(unit.read)))
                if len(reading) > AHEAD:
                    yield _outcome(backend, *reading.pop(0))
            while reading:
                yield _outcome(backend, *reading.pop(0))

    return classify


def _leave_cores_to_the_engine() -> None:
    """Give this thread the lowest priority: an engine's threads wait for each other, so each has to keep its core."""
    if sys.platform == "linux":  # elsewhere only a process has a priority
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)


def versions() -> dict[str, str]:
    """Of everything that decides the pixels and the answers."""
    found = {name: metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "libopenslide": openslide.__library_version__, **found}


def _outcome(backend: Backend, unit: Unit, pixels: Future[Pixels]) -> Outcome:
    try:
        return unit, backend.classify(pixels.result())
    except RegionError as error:
        return unit, error
