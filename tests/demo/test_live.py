import pytest
import requests

from demo.live import EXPLANATIONS, PREDICTIONS, Monitor, Sample, rates, read_sample
from serving.supervisor import TILE, TorchServe


def sample(moment: float, predictions: float, seconds: float) -> Sample:
    zero = {PREDICTIONS: predictions, EXPLANATIONS: 0.0}
    return Sample(moment, zero, {PREDICTIONS: seconds, EXPLANATIONS: 0.0}, {}, 0, 0, 0)


def test_rates_are_differences_over_time() -> None:
    (rate,) = rates([sample(10, 4, 1.0), sample(12, 10, 1.6)])
    assert rate.requests == {PREDICTIONS: 3.0, EXPLANATIONS: 0.0}
    assert rate.latency == {PREDICTIONS: pytest.approx(0.1), EXPLANATIONS: None}


def test_a_server_started_anew_counts_from_nothing() -> None:
    (rate,) = rates([sample(10, 100, 50.0), sample(12, 2, 0.4)])
    assert rate.requests[PREDICTIONS] == 1.0
    assert rate.latency[PREDICTIONS] == pytest.approx(0.2)


def test_one_look_serves_all_visitors_for_a_while() -> None:
    looks = []

    def fetch() -> str:
        looks.append(1)
        return ""

    monitor = Monitor(fetch, "pathmnist", interval=60)
    assert monitor.samples() == monitor.samples()
    assert len(looks) == 1


def test_the_servers_counters_are_read(server: TorchServe) -> None:
    def look() -> Sample:
        return read_sample(requests.get(f"{server.metrics_url}/metrics", timeout=30).text, "pathmnist", 0)

    def ask(verb: str) -> str:
        answer = requests.post(f"{server.url}/{verb}/pathmnist", data=TILE.read_bytes(), timeout=60)
        return str(answer.json()["prediction"]["code"])

    before = look()
    codes = [ask("predictions") for _ in range(3)]
    ask("explanations")
    after = look()
    assert after.requests[PREDICTIONS] == before.requests[PREDICTIONS] + 3
    assert after.requests[EXPLANATIONS] == before.requests[EXPLANATIONS] + 1
    assert after.latency[PREDICTIONS] > before.latency[PREDICTIONS]
    assert after.classes[codes[0]] == before.classes.get(codes[0], 0) + 4
