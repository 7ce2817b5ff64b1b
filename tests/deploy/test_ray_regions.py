"""Maps on a Ray cluster: a worker that dies loses nothing, and the answers are those of one process."""

import os
from pathlib import Path

import numpy as np
import psutil
import pytest
from ray.cluster_utils import Cluster

from regions import job
from regions.answers import Answers
from regions.cluster import Workers, on_workers
from regions.job import Job, Run, Settings
from regions.local_backend import LocalBackend
from regions.run import Unit
from tests.conftest import Pixels
from tests.support.slides import mosaic, write_pyramid


def worker_processes() -> list[psutil.Process]:
    """The processes of Ray's actors that have loaded a model."""
    ours = psutil.Process().children(recursive=True)
    return [process for process in ours if "MapWorker" in " ".join(process.cmdline())]


def test_a_worker_that_is_killed_loses_nothing(
    cluster: Cluster, archive: Path, tiles: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "SHARE", 12)
    monkeypatch.setenv("PATHMNIST_ENGINE", os.environ["PATHMNIST_ENGINE"])
    write_pyramid(tmp_path / "slide.tif", mosaic(np.concatenate([tiles] * 12), 24), 4.0)
    backend = LocalBackend.of_archive(archive)
    common = Run(Settings(all_tiles=True), backend.identity(), {}, [])
    work = Job(tmp_path / "slide.tif", tmp_path, common)
    units = [Unit(work, number, share) for number, share in enumerate(work.shares)]
    found: dict[int, Answers] = {}
    killed: list[int] = []
    for unit, outcome in on_workers(archive, None, backend.identity(), Workers(2))(units):
        assert isinstance(outcome, Answers), outcome
        assert unit.number not in found
        found[unit.number] = outcome
        if not killed:
            victim = worker_processes()[0]
            victim.kill()
            killed.append(victim.pid)
    assert killed
    assert sorted(found) == list(range(len(units)))
    expected = backend.classify(np.concatenate([unit.read() for unit in units]))
    answers = Answers.join([found[number] for number in sorted(found)])
    assert np.array_equal(answers.logits.argmax(axis=1), expected.logits.argmax(axis=1))
    assert answers.probabilities == pytest.approx(expected.probabilities, abs=1e-4)
    assert answers.cams == pytest.approx(expected.cams, abs=1e-3)
