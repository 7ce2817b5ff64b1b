"""What a worker counts and times, for Prometheus.

Where `PROMETHEUS_MULTIPROC_DIR` names a folder, every process writes its numbers there and the edge adds them up
(serving/gateway/metrics.py); TorchServe's own histograms begin at 5 ms, which is more than most stages take.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram

ENGINE = Gauge("pathmnist_engine", "1 for each engine that serves.", ["engine"], multiprocess_mode="livemax")
REQUESTS = Counter(
    "pathmnist_requests",
    "Requests by verb (predictions, explanations) and outcome: ok, or the code of the error.",
    ["verb", "outcome"],
)
EXPLANATIONS = Counter(
    "pathmnist_explanations",
    "Explanations by method and outcome: ok, budget_exceeded, or failed.",
    ["method", "outcome"],
)
PREDICTED_CLASS = Counter("pathmnist_predicted_class", "Answers by predicted class.", ["code"])
CACHE = Counter("pathmnist_explanation_cache", "Costly maps by whether the cache had them: hit, miss.", ["result"])
STAGE = Histogram(
    "pathmnist_stage_seconds",
    "Seconds in decode (a request), model (a batch), explain (a batch) and render (a picture).",
    ["stage"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
BATCH_SIZE = Histogram("pathmnist_batch_size", "Requests that share a batch.", buckets=(1, 2, 3, 4, 6, 8, 16, 32))
CONFIDENCE = Histogram(
    "pathmnist_confidence",
    "Probability of the predicted class, calibrated where the model is.",
    buckets=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1),
)
OOD_RATIO = Histogram(
    "pathmnist_ood_ratio",
    "Out-of-distribution score as a multiple of its threshold: above 1 a tile is not like those learned from.",
    buckets=(0.25, 0.5, 0.75, 1, 1.5, 2, 4, 8),
)
FIT = Counter("pathmnist_fit", "Answers by whether the picture is fit to be judged: fit, doubtful, unfit.", ["verdict"])
FIT_REASONS = Counter(
    "pathmnist_fit_reasons",
    "Answers by what is wrong with the picture, such as out_of_focus; an answer may have several reasons.",
    ["reason"],
)
FOCUS = Histogram(
    "pathmnist_focus",
    "Differences of neighbouring pixels relative to pixels two apart: small where a picture is blurred.",
    buckets=(0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.8, 1),
)
EVALUATIONS = Histogram(
    "pathmnist_gradient_evaluations",
    "Gradients that Integrated Gradients took.",
    buckets=(16, 20, 24, 32, 48, 64, 96, 128, 256),
)
RESIDUAL = Histogram(
    "pathmnist_completeness_residual",
    "By how much the sum of Integrated Gradients misses the change of the logit, relative to it.",
    buckets=(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1),
)


@contextmanager
def stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Time a stage, and leave its time in `seconds` besides."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = time.perf_counter() - start
        STAGE.labels(name).observe(seconds[name])
