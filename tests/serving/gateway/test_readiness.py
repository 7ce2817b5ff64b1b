"""`GET /ready`, with the real model behind the edge and manifests that expect something else."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from handler.classes import NUM_CLASSES
from serving.gateway.app import Edge
from serving.gateway.readiness import FRESH, read_golden
from serving.gateway.settings import Settings
from serving.ports import free_addresses
from serving.supervisor import TorchServe
from tests.support.edge import running, settings_for
from tests.support.metrics import counted


def ready(upstream: str, manifest: Path) -> requests.Response:
    with running(Edge(Settings(inference_address=upstream), manifest=manifest)) as url:
        return requests.get(f"{url}/ready", timeout=30)


def test_the_served_model_is_ready(server: TorchServe, model_store: Path) -> None:
    response = ready(server.inference_url, model_store / "manifest.json")
    assert (response.status_code, response.json()) == (200, {"status": "ready"})
    assert requests.get(f"{server.url}/ready", timeout=30).status_code == 200


def test_the_golden_answer_is_the_servers(server: TorchServe, model_store: Path) -> None:
    golden = read_golden(model_store / "manifest.json")
    answer = requests.post(f"{server.url}/predictions/pathmnist", data=golden.image, timeout=60).json()
    assert answer["prediction"]["class_id"] == golden.class_id
    assert np.abs(np.array(answer["logits"]) - golden.logits).max() < 1e-3


def shift_a_logit(manifest: dict[str, Any]) -> None:
    manifest["golden"]["logits"][4] += 2 * manifest["golden"]["tolerance"]


def change_the_class(manifest: dict[str, Any]) -> None:
    manifest["golden"]["class_id"] = (manifest["golden"]["class_id"] + 1) % NUM_CLASSES


def change_the_model(manifest: dict[str, Any]) -> None:
    manifest["model"]["digest"] = "0" * 64


def drop_the_tile(manifest: dict[str, Any]) -> None:
    del manifest["golden"]


def spoil_the_tile(manifest: dict[str, Any]) -> None:
    manifest["golden"]["image"] = "AAAA"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (shift_a_logit, "logits differ by"),
        (change_the_class, "another class"),
        (change_the_model, "another model"),
        (drop_the_tile, "no golden tile"),
        (spoil_the_tile, "status 415"),
    ],
)
def test_another_answer_is_not_ready_and_says_why(
    change: Callable[[dict[str, Any]], None], reason: str, server: TorchServe, model_store: Path, tmp_path: Path
) -> None:
    manifest = json.loads((model_store / "manifest.json").read_text())
    change(manifest)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest))
    response = ready(server.inference_url, path)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")
    assert reason in response.json()["error"]["message"]
    assert response.headers["Retry-After"] == "1"


def test_without_torchserve_it_is_not_ready(model_store: Path) -> None:
    response = ready(free_addresses()["inference_address"], model_store / "manifest.json")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")


def test_probes_share_one_prediction_a_second(server: TorchServe, model_store: Path) -> None:
    def predictions() -> float:
        return counted(server.metrics_url, "ts_inference_requests_total", model_name="pathmnist")

    with running(Edge(settings_for(server), manifest=model_store / "manifest.json")) as url:
        before = predictions()
        began = time.monotonic()
        for _ in range(50):
            assert requests.get(f"{url}/ready", timeout=30).status_code == 200
        seconds = time.monotonic() - began
    assert 1 <= predictions() - before <= seconds / FRESH + 1
