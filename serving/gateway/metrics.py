"""The edge's own metrics, and one exposition of the metrics of all processes."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

REQUEST_SECONDS = Histogram(
    "pathmnist_request_seconds",
    "Seconds from a request's head to its answer, at the edge, by verb and status.",
    ["verb", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60),
)

JOBS = Gauge("pathmnist_jobs", "Regions at work or waiting.", multiprocess_mode="livemostrecent")
JOBS_ENDED = Counter("pathmnist_jobs_ended", "Regions that ended, by outcome: ok, or the error's code.", ["outcome"])


def exposition() -> bytes:
    """The metrics of the edge and of every worker, alive or not, as text; empty without their common folder."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return b""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)
