"""Maps a list of inputs: opens them, classifies the missing shares, and writes each map when it is complete."""

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import openslide

from regions.backend import Answers, Backend
from regions.errors import RegionError
from regions.grid import Tile, read_tiles
from regions.inputs import claim
from regions.job import Job, Run
from regions.progress import Progress
from regions.source import Pixels

PACKAGES = ("numpy", "openslide-bin", "openslide-python", "openvino", "pillow", "shapely", "tifffile", "torch")
# Shares that are read ahead of the one that is classified.
AHEAD = 2


@dataclass(frozen=True, eq=False)
class Unit:
    """A share of a job's tiles."""

    job: Job
    number: int
    tiles: Sequence[Tile]
    read_mpp: float

    def read(self) -> Pixels:
        return read_tiles(self.job.source, self.job.grid, self.tiles, self.read_mpp)


# Classifies units: the answers in any order, or the error of a unit that has none.
Outcome = tuple[Unit, Answers | RegionError]
Classify = Callable[[Iterable[Unit]], Iterator[Outcome]]


def run(paths: Sequence[Path], output: Path, settings: Run, classify: Classify, progress: Progress) -> None:
    """Write the map of every path into a folder of its own in `output`.

    An input that fails does not affect the others. Maps that exist are left as they are, and answers that an earlier
    run kept are used.
    """
    jobs = _open(paths, output, settings, progress)
    left = {id(job): 0 for job in jobs}
    for unit, outcome in classify(_units(jobs, left, settings, progress)):
        job = unit.job
        if isinstance(outcome, RegionError):
            if id(job) in left:
                progress.fail(job.path, outcome)
            left.pop(id(job), None)
            continue
        job.keep(unit.number, outcome)
        progress.advance(job.weights()[unit.number])
        if id(job) in left:
            left[id(job)] -= 1
            if left[id(job)] == 0:
                job.finish()


def _open(paths: Sequence[Path], output: Path, settings: Run, progress: Progress) -> list[Job]:
    jobs = []
    for path in paths:
        try:
            job = Job(path, claim(output, path), settings)
        except RegionError as error:
            progress.fail(path, error)
            continue
        progress.expect(job.grid.rows * job.grid.columns)
        jobs.append(job)
    return jobs


def _units(jobs: Sequence[Job], left: dict[int, int], settings: Run, progress: Progress) -> Iterator[Unit]:
    """The shares without answers, job by job. Each job is prepared when it is reached."""
    for job in jobs:
        size = job.grid.rows * job.grid.columns
        if job.is_done():
            progress.advance(size)
            continue
        try:
            shares = job.shares()
        except RegionError as error:
            progress.fail(job.path, error)
            continue
        job.prepare()
        missing = list(job.missing())
        left[id(job)] = len(missing)
        weights = job.weights() if shares else [size]
        progress.advance(sum(weight for number, weight in enumerate(weights) if number not in missing))
        if not missing:
            job.finish()
        for number in missing:
            yield Unit(job, number, shares[number], settings.settings.read_mpp)


def in_this_process(backend: Backend) -> Classify:
    """Classify here; a thread reads ahead."""

    def classify(units: Iterable[Unit]) -> Iterator[Outcome]:
        with ThreadPoolExecutor(1) as thread:
            reading = []
            for unit in units:
                reading.append((unit, thread.submit(unit.read)))
                if len(reading) > AHEAD:
                    yield _outcome(backend, *reading.pop(0))
            while reading:
                yield _outcome(backend, *reading.pop(0))

    return classify


def versions() -> dict[str, str]:
    """Of everything that decides the pixels and the answers."""
    found = {name: metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "libopenslide": openslide.__library_version__, **found}


def _outcome(backend: Backend, unit: Unit, pixels: Future[Pixels]) -> Outcome:
    try:
        return unit, backend.classify(pixels.result())
    except RegionError as error:
        return unit, error
