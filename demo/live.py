"""The Live tab: what the server does, from two looks at its Prometheus metrics."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Lock

from prometheus_client.parser import text_string_to_metric_families

PREDICTIONS, EXPLANATIONS = "predictions", "explanations"
# How config.properties names the workers that explain.
EXPLAIN_POOL = "-explain"
HISTORY = 150


@dataclass(frozen=True)
class Sample:
    """The counters at one moment; `moment` and latencies in seconds, by pool; `classes` by class code."""

    moment: float
    requests: Mapping[str, float]
    latency: Mapping[str, float]
    classes: Mapping[str, float]
    cache_hits: float
    cache_misses: float
    errors: float


@dataclass(frozen=True)
class Rate:
    """What happened between two samples: requests and errors a second, mean seconds a request (None: no request)."""

    moment: float
    requests: Mapping[str, float]
    latency: Mapping[str, float | None]


def read_sample(text: str, model: str, moment: float) -> Sample:
    """One model's counters from Prometheus' text format; raises `ValueError`."""
    pools = {model: PREDICTIONS, model + EXPLAIN_POOL: EXPLANATIONS}
    requests, latency = dict.fromkeys(pools.values(), 0.0), dict.fromkeys(pools.values(), 0.0)
    classes: dict[str, float] = {}
    totals = dict.fromkeys(("hit", "miss", "Requests5XX"), 0.0)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removesuffix("_total")
            pool = pools.get(sample.labels.get("model_name", ""))
            if name == "Requests5XX":
                totals[name] += sample.value
            elif name == "pathmnist_explanation_cache":
                totals[sample.labels["result"]] += sample.value
            elif name == "pathmnist_predicted_class":
                classes[sample.labels["code"]] = sample.value
            elif pool and name == "ts_inference_requests":
                requests[pool] += sample.value
            elif pool and name == "ts_inference_latency_microseconds":
                latency[pool] += sample.value / 1e6
    return Sample(moment, requests, latency, classes, *totals.values())


def rates(samples: list[Sample]) -> list[Rate]:
    """Differences between neighbours; a server that was started anew in between counts from nothing."""
    found = []
    for before, after in pairwise(samples):
        seconds = after.moment - before.moment
        restarted = sum(after.requests.values()) < sum(before.requests.values())
        counts = {pool: value - (0 if restarted else before.requests[pool]) for pool, value in after.requests.items()}
        spent = {pool: value - (0 if restarted else before.latency[pool]) for pool, value in after.latency.items()}
        means = {pool: spent[pool] / counts[pool] if counts[pool] else None for pool in counts}
        found.append(Rate(after.moment, {pool: count / seconds for pool, count in counts.items()}, means))
    return found


@dataclass
class Monitor:
    """Looks at the metrics at most every `interval` seconds, however many visitors ask, and remembers."""

    fetch: Callable[[], str]
    model: str
    interval: float = 2.0
    _samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=HISTORY))
    _lock: Lock = field(default_factory=Lock)

    def samples(self) -> list[Sample]:
        """All remembered samples, the last one fresh; raises what `fetch` raises, and `ValueError`."""
        with self._lock:
            if not self._samples or time.monotonic() - self._samples[-1].moment >= self.interval:
                text = self.fetch()
                self._samples.append(read_sample(text, self.model, time.monotonic()))
            return list(self._samples)
