"""The command: with a running server its tiles have the classes of `/predictions`; progress.json says how it went."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import Client
from handler.classes import CODES
from regions.__main__ import main
from serving.ports import free_addresses
from serving.supervisor import ROOT, TorchServe
from tests.conftest import Pixels
from tests.support.slides import mosaic, write_png
from training.data import PathMNIST


def progress_of(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / "progress.json").read_text())
    return content


def command(*words: object) -> subprocess.CompletedProcess[str]:
    """The command as a user gives it, in a process of its own."""
    environment = {**os.environ, "PATHMNIST_TOKEN": ""}
    arguments = [sys.executable, "-m", "regions", *map(str, words)]
    return subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)


@pytest.mark.server
def test_through_a_server_every_tile_has_the_answer_of_predictions(
    server: TorchServe, tiles: Pixels, tmp_path: Path
) -> None:
    write_png(tmp_path / "mosaic.png", mosaic(tiles, 6), 4.0)
    url = server.url
    result = command(tmp_path / "mosaic.png", "--server", url, "--output", tmp_path / "maps", "--all-tiles")
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / "maps" / "mosaic" / "map.json").read_text())
    answers = Client(url).classify(list(tiles), explain="gradcam", target="all", **{"return": "raw"})
    with np.load(tmp_path / "maps" / "mosaic" / "cells.npz") as arrays:
        cams = arrays["cams"]
    for row, answer, maps in zip(content["tiles"], answers, cams, strict=True):
        assert row["class"] == answer.code
        assert row["probabilities"] == pytest.approx([answer.probabilities[code] for code in CODES], abs=1e-5)
        assert row["state"] == answer.content["verdict"]["state"]
        assert (row["fit"], row["fit_reasons"]) == (
            answer.content["fit"]["verdict"],
            answer.content["fit"]["reasons"],
        )
        for cam, explanation in zip(maps, answer.explanations, strict=True):
            assert cam == pytest.approx(explanation.attribution, abs=1e-4)
    assert content["model"] == {"backend": "server", **answers[0].content["model"]}
    assert progress_of(tmp_path / "maps") == {"state": "done", "done": 18, "total": 18, "errors": []}


@pytest.mark.server
def test_the_archive_in_the_process_and_the_server_give_the_same_classes(
    server: TorchServe, model_store: Path, real_data: PathMNIST, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATHMNIST_ENGINE", "exact")
    write_png(tmp_path / "mosaic.png", mosaic(real_data.test.images[:60], 10), 4.0)
    common = [str(tmp_path / "mosaic.png"), "--output"]
    assert main([*common, str(tmp_path / "a"), "--server", server.url]) == 0
    assert main([*common, str(tmp_path / "b"), "--archive", str(model_store / "pathmnist.mar")]) == 0
    first, second = (json.loads((tmp_path / name / "mosaic" / "map.json").read_text()) for name in ("a", "b"))
    assert [row["class"] for row in first["tiles"]] == [row["class"] for row in second["tiles"]]
    assert (first["model"]["backend"], second["model"]["backend"]) == ("server", "local")
    assert first["model"]["digest"] == second["model"]["digest"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--archive", "none.mar"], "archive_missing"),
        (["--server", free_addresses()["edge_address"]], "server_unavailable"),
    ],
)
def test_what_cannot_start_says_why(
    words: list[str], code: str, region: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(region), "--output", str(tmp_path), *words]) == 1
    state = progress_of(tmp_path)
    assert (state["state"], [error["code"] for error in state["errors"]]) == ("failed", [code])
    assert capsys.readouterr().err.splitlines()[-1].startswith("regions: ")
