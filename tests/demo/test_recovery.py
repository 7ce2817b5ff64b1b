"""A server that is down, slow, or back again, without reloading the page."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import expect

from serving.supervisor import TILE, TorchServe
from tests.conftest import Pixels
from tests.demo.conftest import Demo, Edge, Visit, choose, running_demo
from tests.support.images import Encode


@pytest.fixture
def workers(server: TorchServe) -> Iterator[list[psutil.Process]]:
    """The server's workers, which a test may suspend."""
    known = [
        process for process in psutil.process_iter(["cmdline"]) if "--sock-type" in (process.info["cmdline"] or [])
    ]
    ours = [process for process in known if str(server.log.parent) in process.environ().get("TMPDIR", "")]
    assert len(ours) == 2
    yield ours
    for process in ours:
        process.resume()


@pytest.fixture
def impatient(server: TorchServe, edge: Edge, tmp_path: Path) -> Iterator[Demo]:
    """A page that asks through the edge, and waits for 3 seconds."""
    with running_demo(tmp_path, edge.url, server.metrics_url, "--timeout", "3", sign=signal.SIGINT) as running:
        yield running


def test_a_page_outlives_its_server(
    impatient: Demo, edge: Edge, workers: list[psutil.Process], visit: Visit, encode: Encode, tiles: Pixels
) -> None:
    page = visit(url=impatient.url)
    status, answer = page.locator("#status"), page.locator("#answer")
    expect(status.get_by_role("alert")).to_contain_text(f"No model server answers at {edge.url}")
    choose(page, "tile.png", TILE.read_bytes())
    expect(answer.get_by_role("alert")).to_contain_text("No model server answers")

    edge.start()
    expect(status).to_contain_text("Model server ready")
    # Nobody pressed anything.
    expect(page.locator("#class")).to_be_visible(timeout=20000)

    for worker in workers:
        worker.suspend()
    choose(page, "other.png", encode(tiles[0]))
    expect(answer.get_by_role("alert")).to_contain_text("did not answer within 3 seconds")
    for worker in workers:
        worker.resume()
    page.get_by_role("button", name="Try again").first.click()
    expect(page.locator("#class")).to_be_visible(timeout=20000)

    edge.stop()
    expect(status.get_by_role("alert")).to_contain_text("make serve")
    edge.start()
    expect(status).to_contain_text("Model server ready")
    expect(page.locator("#class")).to_be_visible(timeout=20000)
