"""What explanations cost a running server: `python -m bench.explanations --output explanations.json`.

Three measurements against one server, compared within the run:

- the server's own time for a prediction alone, with Grad-CAM, and with Grad-CAM's numbers only;
- the latency of predictions while nothing else runs, while explanations keep their own workers busy, and while they
  share the predictions' workers;
- the bytes of an answer of each method.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import requests
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

TILE = Path(__file__).parent.parent / "docs" / "tile.png"
METHODS = (
    "gradcam",
    "layercam",
    "gradcam_plus_plus",
    "saliency",
    "input_x_gradient",
    "guided_backprop",
    "smoothgrad",
    "integrated_gradients",
    "occlusion",
)
VARIANTS: dict[str, dict[str, str]] = {
    "prediction": {},
    "with gradcam": {"explain": "gradcam"},
    "with gradcam, numbers only": {"explain": "gradcam", "return": "raw"},
}
# A different pixel in each image keeps the cache out of the measurement.
ARRIVALS = np.random.default_rng(0)


def fresh_tile() -> bytes:
    """The example tile with one random pixel, as PNG."""
    pixels = np.asarray(Image.open(TILE).convert("RGB")).copy()
    row, column = ARRIVALS.integers(0, pixels.shape[0], 2)
    pixels[row, column] = ARRIVALS.integers(0, 256, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def post(session: requests.Session, url: str, image: bytes, options: dict[str, str]) -> requests.Response:
    """Post one image; raises if the answer is not 200."""
    response = session.post(url, data=image, params=options, timeout=300)
    response.raise_for_status()
    return response


def server_seconds(metrics_url: str) -> float:
    """All time TorchServe has spent in `pathmnist`'s workers, without the queue."""
    families = list(text_string_to_metric_families(requests.get(f"{metrics_url}/metrics", timeout=30).text))

    def total(name: str) -> float:
        samples = (sample for family in families if family.name == name for sample in family.samples)
        return sum(sample.value for sample in samples if sample.labels["model_name"] == "pathmnist")

    return (total("ts_inference_latency_microseconds") - total("ts_queue_latency_microseconds")) / 1e6


def gradcam_cost(url: str, metrics_url: str, rounds: int, block: int = 20) -> dict[str, Any]:
    """Milliseconds per request by the server's own count, in alternating blocks, and medians of the blocks' ratios."""
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with requests.Session() as session:
        for _ in range(rounds):
            for name, options in VARIANTS.items():
                before = server_seconds(metrics_url)
                for _ in range(block):
                    post(session, f"{url}/predictions/pathmnist", fresh_tile(), options)
                times[name].append((server_seconds(metrics_url) - before) / block * 1e3)
    alone = times["prediction"]
    return {
        name: {
            "milliseconds": round(statistics.median(values), 2),
            "ratio": round(statistics.median(a / b for a, b in zip(values, alone, strict=True)), 3),
        }
        for name, values in times.items()
    }


def latencies(url: str, seconds: float) -> list[float]:
    """Milliseconds of predictions by one client, one after the other."""
    found = []
    end = time.monotonic() + seconds
    with requests.Session() as session:
        while time.monotonic() < end:
            image = fresh_tile()
            start = time.perf_counter()
            post(session, f"{url}/predictions/pathmnist", image, {})
            found.append((time.perf_counter() - start) * 1e3)
    return found


@contextmanager
def busy(url: str, clients: int) -> Iterator[Callable[[], int]]:
    """Clients that ask for Integrated Gradients without a pause; yields a count of the answers so far."""
    stop = Event()
    answered: list[int] = []

    def ask() -> None:
        with requests.Session() as session:
            while not stop.is_set():
                answer = session.post(url, data={"method": "integrated_gradients"}, files={"data": fresh_tile()})
                if answer.status_code == 200:
                    answered.append(1)

    with ThreadPoolExecutor(clients) as pool:
        for _ in range(clients):
            pool.submit(ask)
        try:
            yield lambda: len(answered)
        finally:
            stop.set()


def interference(url: str, inference_url: str, clients: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Prediction latency alone, beside explanations in their own pool, and beside them in the same pool."""
    pools = {"own pool": f"{url}/explanations/pathmnist", "same pool": f"{inference_url}/explanations/pathmnist"}
    found: dict[str, list[float]] = {"alone": [], **{name: [] for name in pools}}
    answered = dict.fromkeys(pools, 0)
    for _ in range(rounds):
        found["alone"] += latencies(url, seconds)
        for name, target in pools.items():
            with busy(target, clients) as count:
                time.sleep(1)
                found[name] += latencies(url, seconds)
                answered[name] += count()
    result: dict[str, Any] = {}
    for name, values in found.items():
        p50, p99 = np.percentile(values, (50, 99))
        result[name] = {"requests": len(values), "p50": round(float(p50), 1), "p99": round(float(p99), 1)}
    for name in pools:
        result[name]["p99_ratio"] = round(result[name]["p99"] / result["alone"]["p99"], 2)
        result[name]["explanations"] = answered[name]
    return result


def answer_bytes(url: str) -> dict[str, int]:
    """Bytes of one answer of each method at 224 pixels."""
    with requests.Session() as session:
        target = f"{url}/explanations/pathmnist"
        return {name: len(post(session, target, fresh_tile(), {"method": name}).content) for name in METHODS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server")
    parser.add_argument("--inference-url", default="http://127.0.0.1:8085", help="TorchServe's own inference address")
    parser.add_argument("--metrics-url", default="http://127.0.0.1:8080")
    parser.add_argument("--clients", type=int, default=4, help="clients that ask for explanations at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of each phase of each round")
    parser.add_argument("--output", type=Path, help="JSON file")
    arguments = parser.parse_args()
    result = {
        "gradcam_cost": gradcam_cost(arguments.url, arguments.metrics_url, arguments.rounds),
        "prediction_latency": interference(
            arguments.url, arguments.inference_url, arguments.clients, arguments.rounds, arguments.seconds
        ),
        "answer_bytes": answer_bytes(arguments.url),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
