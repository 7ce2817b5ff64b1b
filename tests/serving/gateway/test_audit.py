import json
import uuid
from pathlib import Path
from typing import Any

import pytest
import requests

from serving.gateway.app import Edge
from serving.gateway.audit import AuditTrail, first_broken_line
from serving.supervisor import TILE, TorchServe
from tests.support.edge import running, settings_for


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ask(url: str, path: str = "predictions/pathmnist", body: bytes = b"") -> requests.Response:
    return requests.post(f"{url}/{path}", data=body or TILE.read_bytes(), timeout=60)


def test_the_audit_trail_holds_every_answer_without_its_pictures(server: TorchServe, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with running(Edge(settings_for(server, edge_audit_file=path))) as url:
        first = ask(url, "explanations/pathmnist?method=gradcam&return=both").json()
        ask(url, body=b"no image")
    # A second process continues the trail of the first.
    with running(Edge(settings_for(server, edge_audit_file=path))) as url:
        second = ask(url).json()
    one, two = lines(path)
    assert one["answer"]["logits"] == first["logits"]
    assert set(first["explanations"][0]) - set(one["answer"]["explanations"][0]) == {
        "heatmap",
        "overlay",
        "attribution",
    }
    assert two["answer"] == second
    assert first_broken_line(path) is None


@pytest.mark.parametrize("change", ["edit", "remove", "garble"])
def test_a_changed_audit_trail_shows(change: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    trail = AuditTrail(path)
    for number in range(4):
        trail.write({"request_id": str(number)}, b'{"logits": [1.5]}')
    assert first_broken_line(path) is None
    content = path.read_text().splitlines(keepends=True)
    if change == "edit":
        content[1] = content[1].replace("1.5", "2.5")
    elif change == "remove":
        del content[1]
    else:
        content[2] = "{\n"
    path.write_text("".join(content))
    assert first_broken_line(path) == {"edit": 3, "remove": 2, "garble": 3}[change]


def test_no_answer_is_given_that_cannot_be_written_down(server: TorchServe) -> None:
    with running(Edge(settings_for(server, edge_audit_file=Path("/dev/full")))) as url:
        answer = ask(url)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "audit_failed")
    assert uuid.UUID(answer.headers["X-Request-Id"])
