"""Spans as a collector gets them: a real OTLP body over HTTP, parsed by OpenTelemetry's own messages."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from serving.gateway.app import Edge
from serving.gateway.settings import Settings
from serving.ports import free_ports
from serving.supervisor import TILE, TorchServe
from tests.support.edge import running, settings_for

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector() -> Iterator[tuple[str, Queue[Span]]]:
    """The address of a collector, and the spans that arrive there."""
    spans: Queue[Span] = Queue()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            for span in (span for group in message.resource_spans for s in group.scope_spans for span in s.spans):
                spans.put(span)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
        server.shutdown()


def attributes(span: Span) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


def ask(url: str, body: bytes, **headers: str) -> requests.Response:
    return requests.post(f"{url}/explanations/pathmnist?method=gradcam", data=body, headers=headers, timeout=60)


def test_every_request_is_a_span_of_the_clients_trace(server: TorchServe, collector: tuple[str, Queue[Span]]) -> None:
    endpoint, spans = collector
    before = time.time_ns()
    with running(Edge(settings_for(server, edge_traces_endpoint=endpoint))) as url:
        good = ask(url, TILE.read_bytes(), traceparent=f"00-{TRACE}-{PARENT}-01")
        assert ask(url, b"no image").status_code == 415
    first, second = spans.get(timeout=10), spans.get(timeout=10)
    assert spans.empty()
    assert (first.trace_id.hex(), first.parent_span_id.hex()) == (TRACE, PARENT)
    assert second.trace_id.hex() != TRACE
    assert not second.parent_span_id
    assert first.name == "POST /explanations/{model}"
    assert first.kind == Span.SPAN_KIND_SERVER
    assert before <= first.start_time_unix_nano < first.end_time_unix_nano <= time.time_ns()
    said = attributes(first)
    assert said["http.response.status_code"] == 200
    assert said["pathmnist.request_id"] == good.headers["X-Request-Id"]
    assert said["pathmnist.code"] == good.json()["prediction"]["code"]
    assert {"model", "explain"} <= set(json.loads(said["pathmnist.batch_seconds"]))
    assert attributes(second)["pathmnist.outcome"] == "image_unreadable"


def test_a_fault_of_the_server_is_an_error_and_one_of_the_client_is_not(collector: tuple[str, Queue[Span]]) -> None:
    endpoint, spans = collector
    (nobody,) = free_ports(1)
    settings = Settings(
        inference_address=f"http://127.0.0.1:{nobody}", max_request_size=100, edge_traces_endpoint=endpoint
    )
    with running(Edge(settings)) as url:
        assert ask(url, bytes(101)).status_code == 413
        assert ask(url, b"image").status_code == 503
    assert spans.get(timeout=10).status.code == Status.STATUS_CODE_UNSET
    assert spans.get(timeout=10).status.code == Status.STATUS_CODE_ERROR


def test_a_collector_that_is_away_costs_no_answer(server: TorchServe) -> None:
    (nobody,) = free_ports(1)
    settings = settings_for(server, edge_traces_endpoint=f"http://127.0.0.1:{nobody}/v1/traces")
    with running(Edge(settings)) as url:
        assert all(ask(url, TILE.read_bytes()).status_code == 200 for _ in range(5))
