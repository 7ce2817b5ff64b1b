from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.__main__ import THIS, medians, png_files, ratios
from bench.client import Payload, measure
from bench.plot import draw
from bench.systems import BIN, SYSTEMS, System, form, raw, wait_for_answer
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


@pytest.mark.parametrize("peer", SYSTEMS[2:], ids=lambda peer: peer.name)
def test_a_peer_predicts(peer: System, tmp_path: Path) -> None:
    if not BIN.is_dir():
        pytest.skip("`make bench` installs the peers")
    (image,) = png_files(224, 1)
    with contextmanager(peer.start)(tmp_path) as running:
        wait_for_answer(running.url + peer.predict, peer.encode(image))
        assert running.memory_mb() > 10


def test_figures_are_medians_and_ratios_to_this_server(tmp_path: Path) -> None:
    ours = medians([{"per_second at 8": 60.0}, {"per_second at 8": 90.0}, {"per_second at 8": 80.0}])
    assert ours == {"per_second at 8": 80.0}
    table = {"in process": {"mnn, batch 8": 85.0}, THIS: ours, "other": {"per_second at 8": 40.0, "memory_mb": 0.0}}
    assert ratios(table)["other"] == {"per_second at 8": 2.0}
    draw(table, tmp_path / "bench.svg")
    assert "predictions per second" in (tmp_path / "bench.svg").read_text()
