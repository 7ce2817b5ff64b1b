"""The edge's own metric, and one exposition of the metrics of all processes."""

import os

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

REQUEST_SECONDS = Histogram(
    "pathmnist_request_seconds",
    "Seconds from a request's head to its answer, at the edge, by verb and status.",
    ["verb", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60),
)


def exposition() -> bytes:
    """The metrics of the edge and of every worker, alive or not, as text; empty without their common folder."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return b""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)
