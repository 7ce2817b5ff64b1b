"""`POST /regions/pathmnist`, `/jobs/ID` and `/slides`: a map of the tissues of a region, at once or as a job."""

import asyncio
import gzip
import math
import re
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from aiohttp import web

from serving.gateway.answer import Answer
from serving.gateway.jobs import DONE, ID, IMAGE, Job, JobStore, Quota, new_job
from serving.gateway.keys import ANSWERS
from serving.gateway.listener import on_loopback
from serving.gateway.negotiation import choose_type, read_preference
from serving.gateway.payload import JSON_BODY, Batch, Payload
from serving.gateway.pictures import Pictures
from serving.gateway.policy import JSON, RefusedError
from serving.gateway.runner import Runner
from serving.gateway.settings import Settings
from serving.gateway.slides import Slides
from serving.gateway.viewing import Viewing

Read = Callable[[web.Request, int], Awaitable[Payload | Batch]]

PATH = "/regions/pathmnist"
GEOJSON, PNG = "application/geo+json", "image/png"
# A region's results: the name in an address, the command's file, its media type.
FILES = {
    "map.json": ("map.json", JSON),
    "map.geojson": ("map.geojson.gz", GEOJSON),
    "overlay.png": ("overlay.png", PNG),
    "cells.png": ("cells.png", PNG),
    "tiles.parquet": ("tiles.parquet", "application/vnd.apache.parquet"),
    "heat.ome.tiff": ("heat.ome.tiff", "image/tiff"),
    "run.json": ("run.json", JSON),
}
BY_TYPE = {JSON: "map.json", GEOJSON: "map.geojson", PNG: "overlay.png"}
# Numbers that the command takes, besides `slide`.
OPTIONS = ("mpp",)
# Seconds between two looks at whether a waiting client is still there.
LOOK = 0.2
SECONDS_A_DAY = 24 * 60 * 60


class Regions:
    """The routes of regions. Their jobs are folders in `folder`; `read` reads a request's payload up to some bytes.

    `inner` makes an application for the processes of jobs alone, which need its token.
    """

    def __init__(self, folder: Path, settings: Settings, read: Read, inner: Callable[[str], web.Application]) -> None:
        quota = Quota(settings.edge_jobs, settings.edge_jobs_size, settings.edge_jobs_days * SECONDS_A_DAY)
        self._store = JobStore(folder, quota)
        self._slides = Slides(settings.edge_slides)
        self._viewing = Viewing()
        self._pictures = Pictures(self._viewing)
        self._inner = inner
        self._token = secrets.token_urlsafe()
        self._runner = Runner(self._store, self._command, settings.edge_regions, settings.edge_regions_queue)
        self._limit = settings.edge_region_size
        self._read = read

    def add_routes(self, application: web.Application) -> None:
        router, job = application.router, f"/jobs/{{id:{ID}}}"
        router.add_post(PATH, self._classify)
        router.add_get(job, self._show)
        router.add_delete(job, self._delete)
        self._pictures.add_routes(application, f"{job}/image", self._image)
        router.add_get("/slides", self._list)
        self._pictures.add_routes(application, "/slides/{slide}", self._slide)
        router.add_get(f"{job}/{{name:{'|'.join(map(re.escape, FILES))}}}", self._send)
        application.cleanup_ctx.append(self._lifetime)

    async def _lifetime(self, _: web.Application) -> AsyncIterator[None]:
        async with on_loopback(self._inner(self._token)) as self._server, self._runner, self._viewing:
            yield

    async def _classify(self, request: web.Request) -> web.Response:
        kind = choose_type(request.headers.get("Accept", ""), tuple(BY_TYPE))
        preference = read_preference(", ".join(request.headers.getall("Prefer", [])))
        self._runner.require_room()
        payload = await self._payload(request)
        job = self._job(payload, is_awaited=not preference.is_asynchronous)
        await self._runner.submit(job, payload.body)
        if not preference.is_asynchronous:
            return await self._wait_for(request, job, kind)
        if preference.wait and await self._runner.wait(job.id, preference.wait):
            return await self._answer(job.id, BY_TYPE[kind], request)
        headers = {"Location": f"/jobs/{job.id}", "Preference-Applied": "respond-async"}
        return web.json_response(self._described(job), status=HTTPStatus.ACCEPTED, headers=headers)

    async def _payload(self, request: web.Request) -> Payload:
        """One image, or none; raises `RefusedError`."""
        payload = await self._read(request, self._limit)
        if isinstance(payload, Batch):
            raise RefusedError(400, "A request holds one region.", "images_invalid", "data")
        if JSON_BODY.match(payload.body):
            message = "Send the region as the body, or as the field 'data' of a form."
            raise RefusedError(415, message, "image_unreadable", "body")
        return payload

    def _job(self, payload: Payload, is_awaited: bool) -> Job:
        """A new job for a region; raises `RefusedError`."""
        options = dict(payload.options)
        slide = options.pop("slide", "")
        if slide:
            self._slides.path(slide)
        if bool(payload.body) == bool(slide):
            raise RefusedError(400, "Send one region: an image, or the name of a slide.", "image_missing", "body")
        return new_job(_checked(options), slide, is_awaited)

    async def _wait_for(self, request: web.Request, job: Job, kind: str) -> web.Response:
        """The result of a job that lives as long as its request."""
        try:
            while not await self._runner.wait(job.id, LOOK):
                if request.transport is None or request.transport.is_closing():
                    raise RefusedError(400, "The connection ended before the answer.")
            response = await self._answer(job.id, BY_TYPE[kind], request)
            # The map may be large and in any form, so what is written down are its digests.
            run = await asyncio.to_thread(_read_result, self._store.results(job.id), "run.json")
            request[ANSWERS] = (Answer(HTTPStatus.OK, JSON, run, {"outcome": "ok", "job": job.id}),)
            return response
        finally:
            await self._runner.delete(job.id)

    async def _show(self, request: web.Request) -> web.Response:
        """The state of a job, or its result if the client accepts nothing but that."""
        kind = choose_type(request.headers.get("Accept", ""), tuple(BY_TYPE))
        if kind != JSON:
            return await self._answer(request.match_info["id"], BY_TYPE[kind], request)
        return web.json_response(self._described(self._store.read(request.match_info["id"])))

    async def _send(self, request: web.Request) -> web.Response:
        return await self._answer(request.match_info["id"], request.match_info["name"], request)

    async def _delete(self, request: web.Request) -> web.Response:
        self._store.read(request.match_info["id"])
        await self._runner.delete(request.match_info["id"])
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _answer(self, identity: str, name: str, request: web.Request) -> web.Response:
        """A file of a job's results. Raises the error of a job that failed, and one if it is unfinished."""
        job = self._store.read(identity)
        if job.error:
            error = job.error
            raise RefusedError(error["status"], error["message"], error["code"], error["field"])
        if job.state != DONE:
            raise RefusedError(409, "The job has not finished; its state says how far it is.", "job_unfinished")
        file, kind = FILES[name]
        body = await asyncio.to_thread(_read_result, self._store.results(identity), file)
        headers = {"Content-Type": kind, "Content-Location": f"/jobs/{identity}/{name}"}
        if not file.endswith(".gz"):
            return web.Response(body=body, headers=headers)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return web.Response(body=body, headers={**headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"})
        return web.Response(body=await asyncio.to_thread(gzip.decompress, body), headers=headers)

    def _described(self, job: Job) -> dict[str, Any]:
        """A job as JSON."""
        own, progress = f"/jobs/{job.id}", self._store.progress(job.id)
        names = FILES if job.state == DONE else ()
        return {
            "id": job.id,
            "state": job.state,
            "created": _moment(job.created),
            "finished": _moment(job.finished),
            "progress": {"done": progress.done, "total": progress.total},
            "error": job.error and {name: job.error[name] for name in ("code", "message", "field")},
            "slide": job.slide or None,
            "options": dict(job.options),
            "links": {"self": own, **{name: f"{own}/{name}" for name in names}},
        }

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"slides": await asyncio.to_thread(self._slides.names)})

    def _slide(self, request: web.Request) -> Path:
        return self._slides.path(request.match_info["slide"])

    def _image(self, request: web.Request) -> Path:
        """The file of a job's region."""
        job = self._store.read(request.match_info["id"])
        return self._file(job)

    def _file(self, job: Job) -> Path:
        return self._slides.path(job.slide) if job.slide else self._store.folder(job.id) / IMAGE

    def _command(self, job: Job) -> tuple[list[str], dict[str, str]]:
        command = [sys.executable, "-m", "regions", str(self._file(job)), "--output", str(self._store.results(job.id))]
        options = [text for name, value in job.options.items() for text in (f"--{name}", value)]
        return [*command, "--server", self._server, *options], {"PATHMNIST_TOKEN": self._token}


def _checked(options: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in options.items():
        if name not in OPTIONS:
            raise RefusedError(400, f"There is no option {name[:40]!r} for regions.", "option_unknown", name)
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            raise RefusedError(400, f"{name!r} must be a number above 0.", "parameter_invalid", name)
    return options


def _read_result(folder: Path, file: str) -> bytes:
    """A file of the one map below a folder; raises `RefusedError` if it has been removed."""
    try:
        return next(folder.glob(f"*/{file}")).read_bytes()
    except (StopIteration, OSError) as error:
        raise RefusedError(404, "The result is no longer there.") from error


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
