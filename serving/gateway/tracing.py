"""OpenTelemetry traces of the edge: a span for each request, sent to a collector by OTLP over HTTP.

The span belongs to the trace that a client's `traceparent` names (W3C Trace Context). TorchServe's frontend passes no
trace to its workers, so the worker's times are attributes of the span.
"""

import json
from collections.abc import Mapping
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

SERVICE = "pathmnist-edge"
# Names of OpenTelemetry's semantic conventions for HTTP; other attributes get the project's prefix.
CONVENTIONS = {
    "status": "http.response.status_code",
    "request_bytes": "http.request.body.size",
    "response_bytes": "http.response.body.size",
}
# The span has its own.
LEFT_OUT = ("time", "seconds")


class Traces:
    """Spans, sent in the background in batches. If the collector is down, traces are lost and no answer is."""

    def __init__(self, endpoint: str) -> None:
        """`endpoint` is a collector's address for traces, such as http://127.0.0.1:4318/v1/traces."""
        self._provider = TracerProvider(resource=Resource.create({"service.name": SERVICE}), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        self._tracer = self._provider.get_tracer(__name__)
        self._context = TraceContextTextMapPropagator()

    def write(self, record: Mapping[str, Any], method: str, traceparent: str, ended: int) -> None:
        """A span for a request's line of the log that ended at `ended`, in nanoseconds since 1970."""
        span = self._tracer.start_span(
            f"{method} /{record['verb']}/{{model}}",
            self._context.extract({"traceparent": traceparent}),
            SpanKind.SERVER,
            {"http.request.method": method, "http.route": f"/{record['verb']}/{{model}}"} | _attributes(record),
            start_time=ended - round(record["seconds"] * 1e9),
        )
        if record["status"] >= 500:
            span.set_status(StatusCode.ERROR, record["outcome"])
        span.end(ended)

    def close(self) -> None:
        """Send the spans that are left."""
        self._provider.shutdown()


def _attributes(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        CONVENTIONS.get(name, f"pathmnist.{name}"): json.dumps(value) if isinstance(value, dict) else value
        for name, value in record.items()
        if value is not None and name not in LEFT_OUT
    }
