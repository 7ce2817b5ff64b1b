"""Where the edge writes down how a request went: metrics, the request log, traces, the audit trail."""

import time
from http import HTTPStatus
from pathlib import Path

from serving.gateway.audit import AuditTrail
from serving.gateway.exchange import Exchange
from serving.gateway.metrics import REQUEST_SECONDS
from serving.gateway.request_log import RequestLog
from serving.gateway.settings import Settings
from serving.gateway.tracing import Traces


class Recorder:
    """Writes to every place that is configured."""

    def __init__(self, settings: Settings, request_log: Path | None) -> None:
        self._log = RequestLog(request_log) if request_log else None
        self._audit = AuditTrail(settings.edge_audit_file) if settings.edge_audit_file else None
        self._traces = Traces(settings.edge_traces_endpoint) if settings.edge_traces_endpoint else None

    def write(self, exchange: Exchange) -> None:
        """Write one exchange down; raises `OSError` if a file cannot be written."""
        REQUEST_SECONDS.labels(exchange.verb, exchange.status).observe(exchange.seconds)
        record = exchange.to_json()
        if self._log:
            self._log.write(record)
        if self._traces:
            self._traces.write(record, exchange.method, exchange.traceparent, time.time_ns())
        if self._audit and exchange.status == HTTPStatus.OK:
            self._audit.write(record, exchange.body)

    def close(self) -> None:
        """Send the traces that are left."""
        if self._traces:
            self._traces.close()
