"""Runs jobs, each in a process of its own, so that its memory and its crashes are not the edge's."""

import asyncio
import json
import logging
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import psutil

from serving.gateway.jobs import FINISHED, QUEUED, RUNNING, Job, JobStore, Progress
from serving.gateway.metrics import JOBS, JOBS_ENDED
from serving.gateway.policy import RefusedError
from serving.gateway.settings import ROOT

OUTPUT = "command.log"
# Seconds that a process has to end by itself.
PATIENCE = 5
# Seconds between two looks for jobs that are too old.
SWEEP = 60
# Seconds after which a client may try again if the queue is full.
RETRY_AFTER = "30"
CRASHED = {
    "code": "internal_error",
    "message": "The work on this region ended unexpectedly.",
    "field": None,
    "status": 500,
}
NO_ANSWER = "The model could not answer for this region; try again later."
# Of the command's errors: statuses other than 400, and the fields that they concern.
STATUSES = {
    "image_too_large": 413,
    "image_too_complex": 413,
    "format_unsupported": 415,
    "image_mode_unsupported": 415,
    "internal_error": 500,
    "server_unavailable": 503,
    "model_changed": 503,
    "unavailable": 503,
    "overloaded": 503,
}
FIELDS = {"mpp_missing": "mpp", "mpp_implausible": "mpp", "mpp_too_coarse": "mpp"}

# What runs for a job: its arguments, and what they add to the environment.
Command = Callable[[Job], tuple[Sequence[str], Mapping[str, str]]]

logger = logging.getLogger(__name__)


class Runner:
    """Works on at most `running` jobs at a time; `queue` others wait. An async context manager.

    Jobs that were unfinished when the server ended are started again, except those whose client has gone. The command
    continues after the tiles that are done.
    """

    def __init__(self, store: JobStore, command: Command, running: int, queue: int) -> None:
        self._store = store
        self._command = command
        self._limit = running + queue
        self._slots = asyncio.Semaphore(running)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> "Runner":
        self._sweeping = asyncio.create_task(self._sweep())
        for job in await asyncio.to_thread(self._store.all):
            if job.state not in FINISHED:
                await asyncio.to_thread(end_left_over, job)
                await self._resume(job)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sweeping.cancel()
        await asyncio.gather(*(self._stop(identity) for identity in list(self._tasks)))

    async def _sweep(self) -> None:
        while True:
            await asyncio.to_thread(self._store.remove_old)
            await asyncio.sleep(SWEEP)

    async def _resume(self, job: Job) -> None:
        if job.is_awaited:
            await asyncio.to_thread(self._store.remove, job.id)
            return
        job = replace(job, state=QUEUED, pid=None)
        self._store.write(job)
        self._start(job)

    def require_room(self) -> None:
        """Raise `RefusedError` if the queue is full."""
        if len(self._tasks) >= self._limit:
            message = f"{self._limit} regions are at work or wait; try again later."
            raise RefusedError(503, message, "overloaded", headers={"Retry-After": RETRY_AFTER})

    async def submit(self, job: Job, image: bytes) -> None:
        """Write a job down and start it, or let it wait; raises `RefusedError` if the queue or the folder is full."""
        self.require_room()
        await asyncio.to_thread(self._store.add, job, image)
        self._start(job)

    async def wait(self, identity: str, seconds: float) -> bool:
        """Wait for the end of a job; returns whether it has ended."""
        task = self._tasks.get(identity)
        if task is None:
            return True
        done, _ = await asyncio.wait({task}, timeout=seconds)
        return bool(done)

    async def delete(self, identity: str) -> None:
        """End a job's process, if it has one, and remove its folder."""
        await self._stop(identity)
        await asyncio.to_thread(self._store.remove, identity)

    def _start(self, job: Job) -> None:
        task = asyncio.create_task(self._run(job))
        self._tasks[job.id] = task
        JOBS.set(len(self._tasks))
        task.add_done_callback(lambda _: self._forget(job.id))

    def _forget(self, identity: str) -> None:
        self._tasks.pop(identity, None)
        JOBS.set(len(self._tasks))

    async def _stop(self, identity: str) -> None:
        if task := self._tasks.get(identity):
            task.cancel()
            await asyncio.wait({task})

    async def _run(self, job: Job) -> None:
        async with self._slots:
            try:
                error = await self._work(job)
                await asyncio.to_thread(self._store.make_room, 0, 0)
            except RefusedError as refused:
                error = {**json.loads(refused.body)["error"], "status": refused.status}
            except OSError:
                logger.exception("job %s failed", job.id)
                error = CRASHED
            JOBS_ENDED.labels(error["code"] if error else "ok").inc()
            if error:
                await asyncio.to_thread(self._store.clear, job.id)
            self._store.write(job.ended(error))

    async def _work(self, job: Job) -> Mapping[str, Any] | None:
        """The command's error, None if it succeeds."""
        folder = self._store.folder(job.id)
        arguments, environment = self._command(job)
        with (folder / OUTPUT).open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            self._store.write(replace(job, state=RUNNING, pid=process.pid))
            status = await process.wait()
        finally:
            await _end(process)
        return None if status == 0 else _error(self._store.progress(job.id))


def _error(progress: Progress) -> Mapping[str, Any]:
    """The error of a command that failed, with an HTTP status."""
    if not progress.errors:
        return CRASHED
    code, message = (progress.errors[0][name] for name in ("code", "message"))
    status = STATUSES.get(code, 400)
    # The command's own words name the address that only it knows.
    message = NO_ANSWER if status >= 500 else message
    return {"code": code, "message": message, "field": FIELDS.get(code), "status": status}


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def end_left_over(job: Job) -> None:
    """End the process of a job whose server was killed. Another program may have its id by now and is left alone."""
    if job.pid is None:
        return
    try:
        process = psutil.Process(job.pid)
        if any(job.id in argument for argument in process.cmdline()):
            process.kill()
            process.wait(PATIENCE)
    except psutil.Error:
        return
