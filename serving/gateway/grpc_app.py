"""The Open Inference Protocol v2 and the standard health service over gRPC, by the rules of the HTTP side (app.py).

The metadata `authorization`, `x-request-id` and `traceparent` are the headers of those names. Every response has the
trailing metadata `x-request-id`. An error has a status, a message that begins with its code, and that code as the
trailing metadata `error-code`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.gateway.answer import Answer, Question, refusal
from serving.gateway.exchange import Exchange
from serving.gateway.kserve import EXTENSIONS, MODEL, SERVER, require_all, require_model
from serving.gateway.open_inference import metadata
from serving.gateway.open_inference_grpc import messages, read_message, services, write_message
from serving.gateway.policy import REQUEST_ID, RefusedError, quotable, request_id
from serving.gateway.settings import Settings

SERVICE = "inference.GRPCInferenceService"
# What a client of the health service may ask for; "" is the server.
HEALTHY = ("", SERVICE, MODEL)
# Seconds between two looks for a client that watches.
WATCH_INTERVAL = 5.0
# Seconds for requests in progress when the server stops.
GRACE = 5.0
RETRY_AFTER = "Retry-After"
Status = grpc.StatusCode
STATUSES = {
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.NOT_FOUND,
    429: Status.RESOURCE_EXHAUSTED,
    503: Status.UNAVAILABLE,
    504: Status.DEADLINE_EXCEEDED,
    507: Status.RESOURCE_EXHAUSTED,
}

logger = logging.getLogger(__name__)


class Host(Protocol):
    """What answers the questions: the edge (service.py), or Ray's pools (deploy/ray/serve.py)."""

    def admit(self, client: str, authorization: bytes) -> None: ...

    async def ask_each(self, questions: Sequence[Question], identity: str, client: str) -> list[Answer]: ...

    def record(self, exchanges: Iterable[Exchange]) -> None: ...

    async def reason(self) -> str | None: ...

    def model_version(self) -> str: ...


@dataclass
class Call:
    """A call: its id, who calls, and for the record what it asks of the model, its size, and the answers."""

    identity: str
    client: str
    authorization: bytes
    traceparent: str
    verb: str
    size: int
    answers: Sequence[Answer] = ()
    start: float = field(default_factory=time.perf_counter)

    def exchanges(self) -> Iterator[Exchange]:
        """What to write down: one entry for each question; nothing for calls that do not reach the model."""
        seconds = time.perf_counter() - self.start
        for answer in self.answers if self.verb else ():
            sent = (self.identity, "POST", self.verb, self.traceparent)
            yield Exchange(*sent, answer.status, seconds, self.size, answer.body, answer.facts)


class InferenceService(services.GRPCInferenceServiceServicer):
    """The protocol's service. Its methods have the protocol's names."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def live(_: Call) -> Any:
            return messages.ServerLiveResponse(live=True)

        return await self._respond(context, live)

    async def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def ready(_: Call) -> Any:
            return messages.ServerReadyResponse(ready=await self._host.reason() is None)

        return await self._respond(context, ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def ready(_: Call) -> Any:
            self._require_model(request.name, request.version)
            return messages.ModelReadyResponse(ready=await self._host.reason() is None)

        return await self._respond(context, ready)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def described(_: Call) -> Any:
            version = self._host.model_version()
            return messages.ServerMetadataResponse(name=SERVER, version=version, extensions=EXTENSIONS)

        return await self._respond(context, described)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def described(_: Call) -> Any:
            return messages.ModelMetadataResponse(**metadata(MODEL, self._require_model(request.name, request.version)))

        return await self._respond(context, described)

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        async def infer(call: Call) -> Any:
            version = self._require_model(request.model_name, request.model_version)
            # Large messages would keep other requests waiting.
            inference = await asyncio.to_thread(read_message, request)
            questions = inference.questions()
            call.verb = questions[0].verb
            call.answers = await self._host.ask_each(questions, call.identity, call.client)
            require_all(call.answers, len(inference.images))
            bodies = [answer.body for answer in call.answers]
            return await asyncio.to_thread(write_message, inference, MODEL, version, bodies)

        return await self._respond(context, infer, "predictions", request.ByteSize())

    async def _respond(
        self, context: Any, respond: Callable[[Call], Awaitable[Any]], verb: str = "", size: int = 0
    ) -> Any:
        """The response. An error ends the call with its status."""
        call = _call(context, verb, size)
        context.set_trailing_metadata(_trailer(call.identity))
        try:
            return await self._recorded(call, respond)
        except RefusedError as error:
            message = quotable(f"{error.code}: {error}")
            await context.abort(status_of(error), message, _trailer(call.identity, error))

    async def _recorded(self, call: Call, respond: Callable[[Call], Awaitable[Any]]) -> Any:
        try:
            self._host.admit(call.client, call.authorization)
            return await respond(call)
        except RefusedError as error:
            call.answers = (refusal(error),)
            raise
        except Exception as error:
            logger.exception("request %s failed", call.identity)
            refused = RefusedError(500, "The server failed to answer this request.")
            call.answers = (refusal(refused),)
            raise refused from error
        finally:
            self._host.record(call.exchanges())

    def _require_model(self, name: str, version: str) -> str:
        served = self._host.model_version()
        require_model(name, version, served)
        return served


class HealthService(health_pb2_grpc.HealthServicer):
    """`grpc.health.v1.Health`, which needs no token: serving if the model answers its golden tile."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.service not in HEALTHY:
            await context.abort(Status.NOT_FOUND, "not_found: There is no such service.")
        return health_pb2.HealthCheckResponse(status=await self._status(request.service))

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        last = None
        while True:
            status = await self._status(request.service)
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
            last = status
            await asyncio.sleep(WATCH_INTERVAL)

    async def _status(self, service: str) -> int:
        kinds = health_pb2.HealthCheckResponse
        if service not in HEALTHY:
            return int(kinds.SERVICE_UNKNOWN)
        return int(kinds.NOT_SERVING if await self._host.reason() else kinds.SERVING)


@asynccontextmanager
async def grpc_listening(host: Host, address: str, settings: Settings) -> AsyncIterator[None]:
    """Serve on an address and `edge_grpc_port` as long as the context lasts, by TLS if the edge has a certificate.

    gRPC itself refuses messages above `max_request_size`, after decompression too.
    """
    options = [("grpc.max_receive_message_length", settings.max_request_size), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options)
    services.add_GRPCInferenceServiceServicer_to_server(InferenceService(host), server)
    health_pb2_grpc.add_HealthServicer_to_server(HealthService(host), server)
    target = f"{f'[{address}]' if ':' in address else address}:{settings.edge_grpc_port}"
    chain, key = settings.edge_certificate_file, settings.edge_private_key_file
    if settings.edge_address.startswith("https:") and chain and key:
        pair = (key.read_bytes(), chain.read_bytes())
        server.add_secure_port(target, grpc.ssl_server_credentials([pair]))
    else:
        server.add_insecure_port(target)
    await server.start()
    try:
        yield
    finally:
        await server.stop(GRACE)


def status_of(error: RefusedError) -> grpc.StatusCode:
    """gRPC's status for an error. Every error of the request itself is INVALID_ARGUMENT."""
    return STATUSES.get(error.status, Status.INTERNAL if error.status >= 500 else Status.INVALID_ARGUMENT)


def _call(context: Any, verb: str, size: int) -> Call:
    sent = dict(context.invocation_metadata() or ())

    def text(name: str) -> str:
        value = sent.get(name, "")
        return value if isinstance(value, str) else value.decode("latin-1")

    identity, authorization = request_id(text(REQUEST_ID.lower())), text("authorization").encode("latin-1")
    return Call(identity, _client(context.peer()), authorization, text("traceparent"), verb, size)


def _client(peer: str) -> str:
    """The address in gRPC's `ipv4:127.0.0.1:5000` or `ipv6:[::1]:5000`, in the form in which HTTP requests have it."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


def _trailer(identity: str, error: RefusedError | None = None) -> tuple[tuple[str, str], ...]:
    """Trailing metadata: the id, and for an error its code and when to come back."""
    items = [(REQUEST_ID.lower(), identity)]
    if error:
        items.append(("error-code", error.code))
    if error and RETRY_AFTER in error.headers:
        items.append((RETRY_AFTER.lower(), error.headers[RETRY_AFTER]))
    return tuple(items)
