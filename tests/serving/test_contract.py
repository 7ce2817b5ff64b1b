"""The server is what `/openapi.json` says."""

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import requests

from export.contract import openapi, table
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
    hint = "python -m export.contract --output docs/openapi.json"
    assert requests.get(f"{server.url}/openapi.json", timeout=10).json() == openapi(), hint
    assert requests.get(f"{server.url}/contract.json", timeout=10).json() == table(), hint


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


def test_a_response_that_is_not_described_fails_its_test(server: TorchServe) -> None:
    """`described` in tests/conftest.py checks every response."""
    response = requests.post(f"{server.url}/predictions/pathmnist", data=TILE.read_bytes(), timeout=60)
    answer = response.json()
    changed: list[dict[str, Any]] = [{**answer, "mood": "good"}, {**answer, "logits": [0.5]}, {"results": [{}]}]
    for content in changed:
        response._content = json.dumps(content).encode()
        with pytest.raises(jsonschema_rs.ValidationError):
            require_described(response)
    response.status_code = 418
    with pytest.raises(AssertionError, match="418"):
        require_described(response)


def test_the_model_describes_itself(server: TorchServe) -> None:
    about = requests.get(f"{server.url}/models/pathmnist", timeout=10).json()
    assert [item["code"] for item in about["classes"]] == list(CODES)
    assert [item["name"] for item in about["methods"]] == list(METHODS)
    assert {item["name"] for item in about["methods"] if item["same_as"]} == {"hirescam", "xgradcam"}
    assert len({item["colour"] for item in about["classes"]}) == len(CODES)
    assert about.items() >= table().items()
    answer = requests.post(f"{server.url}/predictions/pathmnist", data=TILE.read_bytes(), timeout=60).json()
    assert {**about["model"], "engine": answer["model"]["engine"]} == answer["model"]
