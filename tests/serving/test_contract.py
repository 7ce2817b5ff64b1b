"""The server is what `/openapi.json` says."""

import subprocess
from pathlib import Path

import pytest
import requests

from export.contract import openapi
from handler.classes import CODES
from handler.explain.registry import METHODS
from serving.supervisor import ROOT, TILE, TorchServe
from tests.support.clients import CLIENTS, ask_through, require_clients
from tests.support.contract import require_described


@pytest.fixture(scope="module")
def tools() -> Path:
    require_clients()
    return CLIENTS


def test_the_description_is_of_this_code(server: TorchServe) -> None:
    assert requests.get(f"{server.url}/openapi.json", timeout=10).json() == openapi(), (
        "python -m export.contract --output docs/openapi.json"
    )


def test_generated_requests_get_described_responses(tools: Path, short_tempered: TorchServe, tmp_path: Path) -> None:
    """By a server that does not wait for more requests, because these come one by one."""
    command = [
        str(tools / "schemathesis"),
        "run",
        f"{short_tempered.url}/openapi.json",
        "--max-examples",
        "20",
        "--seed",
        "1",
    ]
    # No schema can say which bytes are an image, so valid requests may be refused.
    # Each region that is sent starts a process; tests/serving/test_regions.py has what is refused.
    command += ["--exclude-path", "/regions/pathmnist"]
    command += ["--phases", "examples,coverage,fuzzing", "--exclude-checks", "positive_data_acceptance"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert finished.returncode == 0, finished.stdout


def test_a_generated_client_classifies_and_explains(tools: Path, server: TorchServe, tmp_path: Path) -> None:
    description, output = ROOT / "docs" / "openapi.json", tmp_path / "generated"
    options = ["--meta", "none", "--path", str(description), "--output-path", str(output)]
    subprocess.run([str(tools / "openapi-python-client"), "generate", *options], check=True, capture_output=True)
    found = ask_through("generated_client.py", tmp_path, server.url, TILE)
    answer = requests.post(f"{server.url}/predictions/pathmnist", data=TILE.read_bytes(), timeout=60).json()
    assert found == {"logits": answer["logits"], "methods": ["saliency", "saliency"], "licence": "MIT"}


def test_the_model_describes_itself(server: TorchServe) -> None:
    about = requests.get(f"{server.url}/models/pathmnist", timeout=10).json()
    require_described(about, "About")
    assert [item["code"] for item in about["classes"]] == list(CODES)
    assert [item["name"] for item in about["methods"]] == list(METHODS)
    answer = requests.post(f"{server.url}/predictions/pathmnist", data=TILE.read_bytes(), timeout=60).json()
    assert {**about["model"], "engine": answer["model"]["engine"]} == answer["model"]
