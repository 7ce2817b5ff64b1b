"""`python -m deploy.ray.serve`: the server's HTTP API on a Ray cluster, until Ctrl-C.

An edge reads HTTP and hands requests to one of two pools, predictions or explanations, whose replicas batch them as
TorchServe's workers do and come and go with the load. A request whose replica dies goes to another: it only reads.
"""

import argparse
import asyncio
import hmac
import json
import logging
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deploy.ray.archive import ARCHIVE, connect, open_service
from handler.api.errors import error_json
from handler.api.request import RawRequest
from serving.ports import is_loopback

NAME = "pathmnist"
MAX_REQUEST_SIZE = 16 * 1024 * 1024
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
ATTEMPTS = 3
# Seconds for one answer, the slowest legal explanation's included.
PATIENCE = 300
QUEUE = 128

logger = logging.getLogger(__name__)


class Classifier:
    """One replica with the model of an archive, and the archive's settings for a pool."""

    def __init__(self, archive: Path, pool: str, batch: int) -> None:
        self._folder = TemporaryDirectory()
        self._service = open_service(archive, Path(self._folder.name), pool)
        self.respond.set_max_batch_size(batch)  # type: ignore[attr-defined]

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.005)
    async def respond(self, requests: list[RawRequest]) -> list[tuple[int, bytes]]:
        """The status and the JSON body for each request."""
        responses = await asyncio.to_thread(self._service.respond, requests)
        return [(response.status, response.body) for response in responses]


class Edge:
    """HTTP to requests and back. With a `token`, who does not bear it gets 401."""

    def __init__(self, predictions: DeploymentHandle[Any], explanations: DeploymentHandle[Any], token: str) -> None:
        self._pools = {f"/predictions/{NAME}": predictions, f"/explanations/{NAME}": explanations}
        self._token = token

    async def __call__(self, request: Request) -> Response:
        path = request.url.path
        if path == "/ping":
            return JSONResponse({"status": "Healthy"})
        borne = request.headers.get("Authorization", "").encode("latin-1")
        if self._token and not hmac.compare_digest(borne, f"Bearer {self._token}".encode()):
            message = "The header Authorization must bear the server's token."
            return _error(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})
        if path not in self._pools:
            return _error(404, "not_found", f"There are {' and '.join(self._pools)}.")
        if request.method not in ("POST", "PUT"):
            return _error(405, "method_not_allowed", "Send the image with POST or PUT.")
        size = int(request.headers.get("Content-Length", 0))
        if size > MAX_REQUEST_SIZE or len(await request.body()) > MAX_REQUEST_SIZE:
            return _error(413, "request_too_large", f"A request has at most {MAX_REQUEST_SIZE} bytes.")
        try:
            fields = {**await _body_fields(request), **request.query_params}
        except MultiPartException as error:
            return _error(400, "request_invalid", error.message)
        return await self._ask(self._pools[path], RawRequest(fields, path.startswith("/explanations/")))

    async def _ask(self, pool: DeploymentHandle[Any], request: RawRequest) -> Response:
        for _ in range(ATTEMPTS):
            try:
                async with asyncio.timeout(PATIENCE):
                    status, body = await pool.respond.remote(request)
                return Response(body, status, media_type="application/json")
            except RayActorError:
                logger.warning("a replica died with a request, which goes to another")
            except BackPressureError:
                return _error(503, "overloaded", "The queue is full.", {"Retry-After": "1"})
            except TimeoutError:
                return _error(504, "timeout", f"No answer within {PATIENCE} s.")
        return _error(503, "unavailable", "Replicas die with this request.", {"Retry-After": "1"})


async def _body_fields(request: Request) -> dict[str, Any]:
    """The body as `handler.api.request` expects it: form fields by name, anything else as `body`."""
    content_type = request.headers.get("Content-Type", "").partition(";")[0]
    body = await request.body()
    # What curl calls everything that `--data-binary` sends.
    binary = content_type == FORMS[1] and not body[:64].isascii()
    if content_type not in FORMS or binary:
        return {"body": _parsed(body) if content_type == "application/json" else body} if body else {}
    form = await request.form(max_part_size=MAX_REQUEST_SIZE)
    return {name: await item.read() if isinstance(item, UploadFile) else item for name, item in form.items()}


def _parsed(body: bytes) -> Any:
    """What JSON says; as it came where it is none, which the handler then finds."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(error_json(code, message, None), status, headers)


def application(archive: Path, replicas: tuple[int, int], gpus: float = 0, token: str = "") -> serve.Application:
    """Edge and pools. Each pool has from the first to the second number of `replicas`, with one core and `gpus`."""

    def pool(name: str, settings: str, batch: int) -> serve.Application:
        return serve.deployment(
            name=name,
            ray_actor_options={"num_cpus": 1, "num_gpus": gpus},
            max_ongoing_requests=2 * batch,
            max_queued_requests=QUEUE,
            autoscaling_config=AutoscalingConfig(
                min_replicas=replicas[0], max_replicas=replicas[1], target_ongoing_requests=batch
            ),
        )(Classifier).bind(archive.resolve(), settings, batch)

    edge = serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000)(Edge)
    return edge.bind(pool("Predictions", NAME, 8), pool("Explanations", f"{NAME}-explain", 4), token)


def start(app: serve.Application, host: str, port: int) -> str:
    """Serve on every node's `host` and `port`, and return the URL once all replicas are ready."""
    serve.start(proxy_location="EveryNode", http_options={"host": host, "port": port})
    serve.run(app, name=NAME, route_prefix="/")
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--archive", type=Path, default=ARCHIVE, help="at the same path on every node")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--min-replicas", type=int, default=1, help="of each pool")
    parser.add_argument("--max-replicas", type=int, default=4, help="of each pool")
    parser.add_argument("--gpus", type=float, default=0, help="of each replica; 0.25 puts four on one GPU")
    arguments = parser.parse_args()
    token = os.environ.get("PATHMNIST_TOKEN", "")
    if not token and not is_loopback(arguments.host):
        parser.error(f"{arguments.host} can be reached by others: set PATHMNIST_TOKEN")
    connect()
    # After Ray, which sets a handler of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    replicas = (arguments.min_replicas, arguments.max_replicas)
    try:
        app = application(arguments.archive, replicas, arguments.gpus, token)
        print(f"ready: {start(app, arguments.host, arguments.port)}/predictions/{NAME}", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        print("stopped")
    finally:
        serve.delete(NAME)


if __name__ == "__main__":
    main()
