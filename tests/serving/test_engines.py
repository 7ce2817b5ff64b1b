"""The server selects an engine and reports it, and the command prints the measurements."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from serving.engines import selections
from serving.ports import free_addresses
from serving.supervisor import ROOT, TILE, TorchServe
from tests.conftest import pool_settings


@pytest.fixture(scope="module")
def own_store(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store without the selections of other tests' servers, which may have other candidates."""
    folder = tmp_path_factory.mktemp("own") / "store"
    return shutil.copytree(model_store, folder, ignore=shutil.ignore_patterns("engines-*.json"))


@pytest.fixture(scope="module")
def choosing(own_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    settings = free_addresses() | {"models": pool_settings(), "engine": "auto"}
    with TorchServe(ROOT / "config.properties", own_store, tmp_path_factory.mktemp("run"), settings) as running:
        running.wait_until_ready()
        yield running


def test_answers_metrics_and_log_name_the_engine(choosing: TorchServe, own_store: Path) -> None:
    answer = requests.post(f"{choosing.url}/predictions/pathmnist", data=TILE.read_bytes(), timeout=60).json()
    engine = answer["model"]["engine"]
    assert f'pathmnist_engine{{engine="{engine}"}} 1.0' in requests.get(f"{choosing.url}/metrics", timeout=60).text
    assert f"the engine {engine} serves" in choosing.log.read_text()
    tables = selections(own_store)
    assert any(line.startswith(engine) and line.endswith("serves") for line in tables[0].splitlines())


def test_a_server_of_any_engine_is_ready(choosing: TorchServe) -> None:
    assert requests.get(f"{choosing.url}/ready", timeout=60).status_code == 200


def test_the_command_prints_the_measurements(choosing: TorchServe, own_store: Path) -> None:
    command = [sys.executable, "-m", "serving", "engines", "--model-store", str(own_store)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "images a second" in printed
    assert "serves" in printed


def test_without_a_start_there_is_nothing_to_print(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serving", "engines", "--model-store", str(tmp_path)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 1
    assert "start the server once" in finished.stderr


def test_files_of_something_else_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "engines-1.json").write_text("[]")
    (tmp_path / "engines-2.json").write_text("{")
    assert selections(tmp_path) == []
