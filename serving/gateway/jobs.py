"""Jobs: work on a region that may outlive its request. Each job is a folder with its image, its state and its results.

The folders have a quota. Its oldest finished jobs make room for others; unfinished ones are never removed.
"""

import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from serving.gateway.policy import RefusedError

QUEUED, RUNNING, DONE, FAILED = "queued", "running", "done", "failed"
FINISHED = (DONE, FAILED)
STATE, IMAGE, RESULTS = "job.json", "image", "results"
# In the folder of the results: how far the command is.
PROGRESS = "progress.json"
# Random bytes of an id, which is all that a client needs to read or delete a job.
ID_BYTES = 16
ID = "[A-Za-z0-9_-]{22}"


@dataclass(frozen=True)
class Quota:
    """What is kept: a number of jobs, their bytes, and seconds after the end of a job."""

    jobs: int
    size: int
    age: float


@dataclass(frozen=True)
class Job:
    """A region and how far its work is. Times are seconds since 1970; `error` is an error's JSON and its `status`.

    `slide` is the name of a slide, or "" if the job's folder holds the image. A job that a request waits for,
    `is_awaited`, ends with that request. `pid` is the process that works on it.
    """

    id: str
    options: Mapping[str, str]
    slide: str = ""
    is_awaited: bool = False
    state: str = QUEUED
    created: float = field(default_factory=time.time)
    finished: float | None = None
    error: Mapping[str, Any] | None = None
    pid: int | None = None

    def ended(self, error: Mapping[str, Any] | None = None) -> "Job":
        """The same job after its end."""
        return replace(self, state=FAILED if error else DONE, finished=time.time(), error=error, pid=None)


@dataclass(frozen=True)
class Progress:
    """Tiles that are done, all tiles, and the errors so far: JSON with `code` and `message`."""

    done: int
    total: int
    errors: tuple[Mapping[str, Any], ...]


def new_job(options: Mapping[str, str], slide: str, is_awaited: bool) -> Job:
    return Job(secrets.token_urlsafe(ID_BYTES), dict(options), slide, is_awaited)


class JobStore:
    """The folders of all jobs. One server uses a folder at a time."""

    def __init__(self, folder: Path, quota: Quota) -> None:
        self._folder = folder.resolve()
        self._quota = quota
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def add(self, job: Job, image: bytes) -> None:
        """Write a job's folder; raises `RefusedError` if it has no room."""
        self.make_room(1, len(image))
        folder = self.folder(job.id)
        folder.mkdir(mode=0o700)
        if not job.slide:
            (folder / IMAGE).write_bytes(image)
        self.write(job)

    def write(self, job: Job) -> None:
        """Replace a job's state at once: readers see the old or the new one."""
        path = self.folder(job.id) / STATE
        scratch = path.with_suffix(".part")
        scratch.write_text(json.dumps(asdict(job)))
        os.replace(scratch, path)

    def read(self, identity: str) -> Job:
        """A job; raises `RefusedError` if there is none."""
        job = _read(self.folder(identity) / STATE)
        if job is None:
            raise RefusedError(404, "There is no such job; it may have been deleted.")
        return job

    def all(self) -> list[Job]:
        """Every job that can be read, the oldest first."""
        jobs = filter(None, map(_read, self._folder.glob(f"*/{STATE}")))
        return sorted(jobs, key=lambda job: job.created)

    def remove(self, identity: str) -> None:
        shutil.rmtree(self.folder(identity), ignore_errors=True)

    def folder(self, identity: str) -> Path:
        return self._folder / identity

    def results(self, identity: str) -> Path:
        """The folder for what the command writes."""
        return self.folder(identity) / RESULTS

    def progress(self, identity: str) -> Progress:
        """What the command says of its work, as far as it has begun."""
        try:
            content = json.loads((self.results(identity) / PROGRESS).read_text())
            return Progress(content["done"], content["total"], tuple(content["errors"]))
        except (OSError, ValueError, KeyError):
            return Progress(0, 0, ())

    def clear(self, identity: str) -> None:
        """Remove the image and the results of a job that failed; its state remains."""
        (self.folder(identity) / IMAGE).unlink(missing_ok=True)
        shutil.rmtree(self.results(identity), ignore_errors=True)

    def remove_old(self) -> None:
        """Remove the jobs that ended too long ago."""
        for job in self.all():
            if job.finished is not None and time.time() - job.finished > self._quota.age:
                self.remove(job.id)

    def make_room(self, jobs: int, size: int) -> None:
        """Remove the oldest finished jobs until a number of jobs and bytes fit.

        Raises `RefusedError` if they do not fit beside the unfinished ones.
        """
        found = self.all()
        kept = {job.id: _size(self.folder(job.id)) for job in found}
        finished = [job.id for job in found if job.state in FINISHED]
        while len(kept) + jobs > self._quota.jobs or sum(kept.values()) + size > self._quota.size:
            if not finished:
                raise RefusedError(503, "The folder of jobs is full; try again later.", "jobs_full")
            oldest = finished.pop(0)
            kept.pop(oldest)
            self.remove(oldest)


def _read(path: Path) -> Job | None:
    try:
        return Job(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
