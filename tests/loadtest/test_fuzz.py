"""A short run of the fuzzer against the real server, and unit tests of its parts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.fuzz import Fuzz, Outcome, problems, send
from loadtest.mutations import KINDS, Mutation, mutation
from serving.supervisor import ROOT, TILE, TorchServe
from tests.support.processes import PROCESSES

SHORT = 200


def test_a_request_depends_on_its_seed_and_number_alone() -> None:
    for number in range(3 * len(KINDS)):
        assert mutation(1, number) == mutation(1, number) != mutation(2, number)


def test_every_kind_of_request_is_sent() -> None:
    assert {mutation(0, number).kind for number in range(len(KINDS))} == set(KINDS)


def test_malformed_requests_harm_no_one(server: TorchServe) -> None:
    """A worker's memory is checked only in long runs, such as that in docs/faults.md."""
    report = Fuzz(server.url, seed=7).run(SHORT, users=2)
    assert report["failures"] == {}
    assert report["good"]["failures"] == {}
    assert report["good"]["requests"] > 10
    assert sum(report["statuses"].values()) == SHORT
    assert {"200", "400"} <= report["statuses"].keys()


def test_what_is_no_error_in_the_common_form_is_noticed(server: TorchServe) -> None:
    head = b"POST /predictions/pathmnist HTTP/1.1\r\nHost: fuzz\r\nConnection: close\r\nContent-Length: "
    image = TILE.read_bytes()
    assert send(server.url, Mutation("good", head + b"%d\r\n\r\n" % len(image) + image)).status == 200
    assert send(server.url, Mutation("bad", head + b"1\r\n\r\nx")).status == 415
    # TorchServe itself has errors of another form.
    outcome = send(server.inference_url, Mutation("bad", head.replace(b"pathmnist", b"unknown") + b"1\r\n\r\nx"))
    assert (outcome.status, outcome.failure) == (404, "an error of another form")


def test_a_server_that_does_not_answer_is_noticed() -> None:
    outcome = send("http://127.0.0.1:1", Mutation("good", b""))
    assert outcome == Outcome("no answer", "no answer: ConnectionRefusedError")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"failures": {"3": "status 500"}}, "1 malformed requests had a wrong response"),
        ({"good": {"failures": {"500 internal_error": 1}, "slowest_seconds": 0.1}}, "valid requests failed"),
        ({"good": {"failures": {}, "slowest_seconds": 2.1}}, "a valid request took longer than 2 s"),
        ({"memory_mib": {"worker 9000": [1000, 1051]}}, "the memory of worker 9000 changed by more than 5%"),
        ({"memory_mib": {"worker 9000": [1000, 0]}}, "the memory of worker 9000 changed by more than 5%"),
        ({"memory_mib": {"worker 9000": [1000, 1049], "frontend": [100, 200]}}, None),
    ],
)
def test_a_report_is_judged(change: dict[str, object], problem: str | None) -> None:
    report = {"failures": {}, "good": {"failures": {}, "slowest_seconds": 0.1}, "memory_mib": {}, **change}
    assert list(problems(report)) == ([problem] if problem else [])


def test_the_command_prints_a_report(model_store: Path) -> None:
    command = [sys.executable, "-m", "loadtest.fuzz", "--requests", "24", "--model-store", str(model_store)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    report = json.loads(finished.stdout)
    assert report["5xx"] == 0
    assert sorted(name.split()[0] for name in report["memory_mib"]) == PROCESSES
