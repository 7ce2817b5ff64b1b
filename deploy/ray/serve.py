"""`python -m deploy.ray.serve`: the server's HTTP API on a Ray cluster, until Ctrl-C.

An edge parses HTTP and sends requests to one of two pools, predictions or explanations. Replicas batch requests like
TorchServe's workers and scale with the load. If a replica dies, its requests are retried: they have no side effects.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.config import AutoscalingConfig
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deploy.ray.archive import ARCHIVE, connect, model_version, open_service, require_signed_archive
from handler.api.request import RawRequest
from serving.gateway import kserve
from serving.gateway.answer import Answer, Question, answer_each, common_error, join
from serving.gateway.exchange import Exchange
from serving.gateway.grpc_app import grpc_listening
from serving.gateway.open_inference_http import HEADER_LENGTH
from serving.gateway.payload import Batch, decompressed, read_payload
from serving.gateway.policy import (
    JSON,
    METHODS,
    REQUEST_ID,
    VERBS,
    RefusedError,
    cors_headers,
    preflight_headers,
    request_id,
    require_token,
)
from serving.gateway.settings import ROOT, Settings, read_properties, read_settings
from serving.ports import is_loopback, reachable

NAME = "pathmnist"
PATHS = tuple(f"/{verb}/{NAME}" for verb in VERBS)
MAX_REQUEST_SIZE = Settings().max_request_size
ATTEMPTS = 3
# Time limit for a response in seconds, including the slowest valid explanation.
PATIENCE = 300
QUEUE = 128
POOLS = ("Predictions", "Explanations")

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


class Pools:
    """The model behind both fronts, HTTP and gRPC. It counts no requests and writes none down."""

    def __init__(self, predictions: DeploymentHandle[Any], explanations: DeploymentHandle[Any]) -> None:
        self._pools = {"predictions": predictions, "explanations": explanations}

    async def ask(self, question: Question) -> Answer:
        """The answer to one question; raises `RefusedError`."""
        payload, pool = question.payload, self._pools[question.verb]
        fields: dict[str, Any] = {**payload.options, **({"body": payload.body} if payload.body else {})}
        request = RawRequest(fields, question.verb == "explanations")
        for _ in range(ATTEMPTS):
            try:
                async with asyncio.timeout(PATIENCE):
                    status, body = await pool.respond.remote(request)
                return Answer(status, JSON, body)
            except RayActorError:
                logger.warning("a replica died; its request is retried on another")
            except BackPressureError as error:
                raise RefusedError(503, "The queue is full.") from error
            except TimeoutError as error:
                raise RefusedError(504, f"No answer within {PATIENCE} s.") from error
        raise RefusedError(503, "The request crashed several replicas and was dropped.", "unavailable")

    async def reason(self) -> str | None:
        """Why the server is not ready; None if it is. `start` waits for the replicas."""
        return None


class Edge:
    """Converts HTTP to requests and back, by the rules of TorchServe's edge (serving/gateway/policy.py)."""

    def __init__(
        self,
        predictions: DeploymentHandle[Any],
        explanations: DeploymentHandle[Any],
        settings: Settings,
        token: str,
        version: str,
    ) -> None:
        self._pools = Pools(predictions, explanations)
        self._settings = settings
        self._token = token
        self._protocols = kserve.KServe(lambda: version, self._pools.reason)

    async def __call__(self, request: Request) -> Response:
        # Ray Serve assigns an id to every request and adds it to the response.
        identity = request_id(request.headers.get(REQUEST_ID))
        try:
            response = await self._answer(request)
        except RefusedError as error:
            response = _error(request, error)
        except Exception:
            logger.exception("request %s failed", identity)
            response = _error(request, RefusedError(500, "The server failed to answer this request."))
        response.headers.update(cors_headers(self._settings, request.headers.get("Origin")))
        return response

    async def _answer(self, request: Request) -> Response:
        path = request.url.path
        preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        if preflight and self._settings.cors_allowed_origin:
            return Response(status_code=204, headers=preflight_headers(self._settings, request.headers.get("Origin")))
        if path == "/ping":
            return JSONResponse({"status": "Healthy"})
        require_token(self._token, request.headers.get("Authorization", "").encode("latin-1"))
        if path.startswith(kserve.PREFIXES):
            return await self._kserve(request)
        if path not in PATHS:
            raise RefusedError(404, f"There is nothing at this address; POST images to /predictions/{NAME}.")
        if request.method not in METHODS:
            raise RefusedError(405, f"{request.method} is not allowed here; see the header Allow.")
        payload = read_payload(
            request.scope["query_string"],
            await self._body(request),
            ", ".join(request.headers.getlist("Content-Type")).encode("latin-1"),
            ", ".join(request.headers.getlist("Content-Encoding")),
            self._settings.max_request_size,
        )

        verb = path.split("/")[1]
        if isinstance(payload, Batch):
            questions = [Question(verb, item) for item in payload.payloads]
            answers = await answer_each(questions, self._pools.ask)
            answer = common_error(answers) or Answer(200, JSON, join(answers))
        else:
            answer = await self._pools.ask(Question(verb, payload))
        return Response(answer.body, answer.status, media_type=JSON)

    async def _kserve(self, request: Request) -> Response:
        async def read() -> bytes:
            encoding = ", ".join(request.headers.getlist("Content-Encoding"))
            limit = self._settings.max_request_size
            return await asyncio.to_thread(decompressed, await self._body(request), encoding, limit)

        call = kserve.Call(
            request.method,
            request.url.path,
            request.scope["query_string"],
            request.headers.get(HEADER_LENGTH, ""),
            read,
            lambda questions: answer_each(questions, self._pools.ask),
        )
        reply = await self._protocols.respond(call)
        return Response(reply.body, headers=reply.headers)

    async def _body(self, request: Request) -> bytes:
        limit = self._settings.max_request_size
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise RefusedError(413, f"A request has at most {limit} bytes.")
        return bytes(body)


class GrpcHost(Pools):
    """The pools for gRPC, by the rules of TorchServe's edge (serving/gateway/grpc_app.py)."""

    def __init__(
        self, predictions: DeploymentHandle[Any], explanations: DeploymentHandle[Any], token: str, version: str
    ) -> None:
        super().__init__(predictions, explanations)
        self._token = token
        self._version = version

    def admit(self, client: str, authorization: bytes) -> None:
        require_token(self._token, authorization)

    async def ask_each(self, questions: Sequence[Question], identity: str, client: str) -> list[Answer]:
        return await answer_each(questions, self.ask)

    def record(self, exchanges: Iterable[Exchange]) -> None: ...

    def model_version(self) -> str:
        return self._version


def _error(request: Request, error: RefusedError) -> Response:
    return Response(kserve.error_body(request.url.path, error), error.status, error.headers, media_type=JSON)


def application(
    archive: Path, replicas: tuple[int, int], gpus: float = 0, token: str = "", settings: Settings | None = None
) -> serve.Application:
    """The edge and the pools. `replicas` is the minimum and maximum of each pool; a replica has one core and `gpus`.

    If `token` is set, requests without it get 401."""

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
    return edge.bind(
        pool(POOLS[0], NAME, 8),
        pool(POOLS[1], f"{NAME}-explain", 4),
        settings or Settings(),
        token,
        model_version(archive),
    )


def start(app: serve.Application, host: str, port: int) -> str:
    """Serve on every node's `host` and `port`, and return the URL once all replicas are ready."""
    serve.start(proxy_location="EveryNode", http_options={"host": host, "port": port})
    serve.run(app, name=NAME, route_prefix="/")
    return reachable(f"http://{f'[{host}]' if ':' in host else host}:{port}")


@asynccontextmanager
async def grpc_front(archive: Path, host: str, token: str, settings: Settings) -> AsyncIterator[None]:
    """The running pools over gRPC, from this process. Ray's own gRPC proxy listens on every address."""
    predictions, explanations = (serve.get_deployment_handle(name, NAME) for name in POOLS)
    async with grpc_listening(GrpcHost(predictions, explanations, token, model_version(archive)), host, settings):
        yield


async def _until_ended(archive: Path, host: str, token: str, settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        if settings.edge_grpc_port:
            await stack.enter_async_context(grpc_front(archive, host, token, settings))
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--archive", type=Path, default=ARCHIVE, help="at the same path on every node")
    parser.add_argument(
        "--config", type=Path, default=ROOT / "config.properties", help="request size limit and CORS settings"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--min-replicas", type=int, default=1, help="of each pool")
    parser.add_argument("--max-replicas", type=int, default=4, help="of each pool")
    parser.add_argument("--gpus", type=float, default=0, help="of each replica; 0.25 puts four on one GPU")
    arguments = parser.parse_args()
    token = os.environ.get("PATHMNIST_TOKEN", "")
    if not token and not is_loopback(arguments.host):
        parser.error(f"{arguments.host} can be reached by others: set PATHMNIST_TOKEN")
    try:
        settings = read_settings(read_properties(arguments.config))
        require_signed_archive(arguments.archive)
    except ValueError as error:
        parser.error(str(error))
    connect()
    # After `connect`: Ray sets its own handler.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    replicas = (arguments.min_replicas, arguments.max_replicas)
    try:
        app = application(arguments.archive, replicas, arguments.gpus, token, settings)
        print(f"ready: {start(app, arguments.host, arguments.port)}/predictions/{NAME}", flush=True)
        asyncio.run(_until_ended(arguments.archive, arguments.host, token, settings))
    except KeyboardInterrupt:
        print("stopped")
    finally:
        serve.delete(NAME)


if __name__ == "__main__":
    main()
