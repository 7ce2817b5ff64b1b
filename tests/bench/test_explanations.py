"""The benchmark runs against a real server and measures what it says."""

from bench.explanations import METHODS, VARIANTS, answer_bytes, gradcam_cost, interference
from serving.supervisor import TorchServe


def test_every_variant_is_timed_by_the_server(server: TorchServe) -> None:
    found = gradcam_cost(server.url, server.metrics_url, rounds=1, block=2)
    assert set(found) == set(VARIANTS)
    assert found["prediction"]["ratio"] == 1
    assert all(item["milliseconds"] > 0 for item in found.values())


def test_predictions_are_timed_beside_explanations(server: TorchServe) -> None:
    found = interference(server.url, server.inference_url, clients=1, rounds=1, seconds=2)
    assert set(found) == {"alone", "own pool", "same pool"}
    for phase in found.values():
        assert phase["requests"] > 0
        assert phase["p50"] <= phase["p99"]


def test_every_methods_answer_is_under_100_kb(server: TorchServe) -> None:
    sizes = answer_bytes(server.url)
    assert set(sizes) == set(METHODS)
    assert max(sizes.values()) < 100_000
