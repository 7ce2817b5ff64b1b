from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.__main__ import IN_PROCESS, THIS, Row, engine_share, medians, png_files, ratios
from bench.client import Payload, measure
from bench.plot import draw
from bench.systems import BIN, SYSTEMS, System, form, own_engine, raw, wait_for_answer
from serving.supervisor import TorchServe


def test_the_client_counts_answers_and_failures_apart(server: TorchServe) -> None:
    url = f"{server.url}/predictions/pathmnist"
    (image,) = png_files(28, 1)
    good = measure(url, [raw(image)], clients=2, warm_up=0, seconds=3)
    assert good.requests > 0
    assert good.failures == 0
    assert good.per_second == pytest.approx(good.requests / 3, abs=0.01)
    assert 0 < good.p50_ms <= good.p99_ms < 3000
    bad = measure(url, [Payload(b"no image", "image/png")], clients=1, warm_up=0, seconds=2)
    assert bad.failures == bad.requests > 0


def test_a_form_and_a_raw_body_are_the_same_image(server: TorchServe) -> None:
    (image,) = png_files(28, 1)
    url = f"{server.url}/predictions/pathmnist"
    assert measure(url, [raw(image), form("data")(image)], clients=2, warm_up=0, seconds=3).failures == 0


def test_this_engine_predicts_behind_fastapi(model_store: Path, tmp_path: Path) -> None:
    (system,) = (system for system in SYSTEMS if system.start is own_engine)
    images = [system.encode(image) for image in png_files(224, 4)]
    with contextmanager(own_engine)(tmp_path, model_store) as running:
        wait_for_answer(running.url + system.predict, images[0])
        load = measure(running.url + system.predict, images, clients=3, warm_up=0, seconds=2)
        assert load.failures == 0
        assert load.body_bytes > 300


@pytest.mark.parametrize("peer", SYSTEMS[3:], ids=lambda peer: peer.name)
def test_a_peer_predicts(peer: System, tmp_path: Path) -> None:
    if not BIN.is_dir():
        pytest.skip("`make bench` installs the peers")
    (image,) = png_files(224, 1)
    with contextmanager(peer.start)(tmp_path) as running:
        wait_for_answer(running.url + peer.predict, peer.encode(image))
        assert running.memory_mb() > 10


def test_figures_are_medians_and_ratios_are_taken_within_a_round(tmp_path: Path) -> None:
    rates = (60.0, 90.0, 80.0)
    rounds: dict[str, list[Row]] = {
        IN_PROCESS: [{"mnn, batch 8": rate + 20} for rate in rates],
        THIS: [{"per_second at 32": rate, "engine": "mnn"} for rate in rates],
        "other": [{"per_second at 32": rate / (index + 1), "memory_mb": 0.0} for index, rate in enumerate(rates)],
    }
    table = {name: medians(rows) for name, rows in rounds.items()}
    assert table[THIS] == {"per_second at 32": 80.0}
    assert ratios(rounds) == {"other": {"per_second at 32": {"median": 2.0, "low": 1.0, "high": 3.0}}}
    assert engine_share(rounds) == {"median": 0.8, "low": 0.75, "high": 0.82}
    draw(table, tmp_path / "bench.svg")
    assert "predictions per second" in (tmp_path / "bench.svg").read_text()
