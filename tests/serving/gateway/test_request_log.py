import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import requests

from serving.gateway.request_log import RequestLog
from serving.supervisor import TILE, TorchServe


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ask(url: str, path: str = "predictions/pathmnist", body: bytes = b"", **options: Any) -> requests.Response:
    return requests.post(f"{url}/{path}", data=body or TILE.read_bytes(), timeout=60, **options)


def test_the_log_has_a_line_of_json_for_each_request(server: TorchServe) -> None:
    answer = ask(server.url, "explanations/pathmnist?method=layercam", headers={"X-Request-Id": "slide-7"})
    ask(server.url, body=b"no image", headers={"X-Request-Id": "slide-8"})
    ask(server.url, "predictions/unknown", headers={"X-Request-Id": "slide-9"})
    good, bad, unknown = (
        next(line for line in lines(server.request_log) if line["request_id"] == name)
        for name in ("slide-7", "slide-8", "slide-9")
    )
    found = answer.json()
    assert (good["verb"], good["status"], good["outcome"]) == ("explanations", 200, "ok")
    assert good["image_sha256"] == hashlib.sha256(TILE.read_bytes()).hexdigest()
    assert good["model_digest"] == found["model"]["digest"]
    assert good["engine"] == found["model"]["engine"]
    assert (good["code"], good["explanations"]) == (found["prediction"]["code"], ["layercam"])
    assert good["seconds"] > 0
    assert good["response_bytes"] == len(answer.content)
    assert (bad["status"], bad["outcome"]) == (415, "image_unreadable")
    assert (unknown["status"], unknown["outcome"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("path", "verb", "outcome"),
    [
        ("v2/models/pathmnist/infer", "predictions", "json_invalid"),
        ("v2/models/pathmnist/versions/0.1/infer", "predictions", "not_found"),
        ("v1/models/pathmnist:predict", "predictions", "json_invalid"),
        ("v1/models/pathmnist:explain", "explanations", "json_invalid"),
    ],
)
def test_a_request_of_kserves_protocols_that_is_refused_is_counted(
    server: TorchServe, path: str, verb: str, outcome: str
) -> None:
    def count(status: int) -> float:
        """Of the edge's metric."""
        text = requests.get(f"{server.metrics_url}/metrics", timeout=30).text
        name = f'pathmnist_request_seconds_count{{status="{status}",verb="{verb}"}}'
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    identity = f"refused-{verb}-{len(path)}"
    status = 404 if outcome == "not_found" else 400
    before = count(status)
    assert ask(server.url, path, b"{", headers={"X-Request-Id": identity}).status_code == status
    (line,) = (line for line in lines(server.request_log) if line["request_id"] == identity)
    assert (line["verb"], line["status"], line["outcome"]) == (verb, status, outcome)
    assert count(status) == before + 1


def test_no_image_and_no_map_is_in_the_log(server: TorchServe) -> None:
    ask(server.url, "explanations/pathmnist?method=gradcam&return=both")
    assert all(len(line) < 1000 for line in server.request_log.read_text().splitlines())


def test_the_log_rotates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.gateway.request_log.LOG_BYTES", 1000)
    log = RequestLog(tmp_path / "requests.jsonl")
    for number in range(200):
        log.write({"request_id": str(number), "padding": "x" * 50})
    files = sorted(tmp_path.iterdir())
    assert len(files) == 5
    assert all(path.stat().st_size <= 1000 for path in files)
    assert lines(tmp_path / "requests.jsonl")[-1]["request_id"] == "199"


def test_every_processs_numbers_are_in_one_exposition(server: TorchServe) -> None:
    def look() -> str:
        return requests.get(f"{server.metrics_url}/metrics", timeout=30).text

    ask(server.url)
    text = look()
    # Of TorchServe, of the worker, of the edge.
    for name in ("ts_inference_requests_total", "pathmnist_stage_seconds_bucket", "pathmnist_request_seconds_bucket"):
        assert f"\n{name}{{" in text
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
