"""A server beyond loopback, with TLS, a token and a rate limit from config.properties."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from serving.gateway.settings import ROOT, read_properties, write_properties
from serving.ports import free_addresses
from serving.supervisor import TILE
from tests.conftest import pool_settings

BURST = 30


@pytest.fixture(scope="module")
def token() -> str:
    return secrets.token_hex(16)


@pytest.fixture(scope="module")
def config(certificate: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    addresses = free_addresses()
    settings = read_properties(ROOT / "config.properties") | addresses | {"models": pool_settings()}
    settings |= {
        "edge_address": addresses["edge_address"].replace("http:", "https:"),
        "edge_certificate_file": str(certificate["chain"]),
        "edge_private_key_file": str(certificate["key"]),
        "edge_rate_limit": "0.01",
        "edge_rate_burst": str(BURST),
    }
    path = tmp_path_factory.mktemp("deployment") / "config.properties"
    write_properties(settings, path)
    return path


@pytest.fixture(scope="module")
def address(config: Path, model_store: Path, token: str) -> Iterator[str]:
    command = [sys.executable, "-m", "serving", "start", "--config", str(config), "--model-store", str(model_store)]
    command += ["--run-folder", str(config.parent / "run")]
    environment = {**os.environ, "PATHMNIST_TOKEN": token}
    with (config.parent / "console").open("w") as console:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=console, text=True
        )
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("ready: https://")
            yield read_properties(config)["edge_address"]
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def session(certificate: dict[str, Path], token: str) -> requests.Session:
    session = requests.Session()
    # An environment variable for trusted certificates would override the next line.
    session.trust_env = False
    session.verify = str(certificate["authority"])
    session.headers["Authorization"] = f"Bearer {token}"
    return session


def test_it_answers_by_tls(address: str, session: requests.Session) -> None:
    response = session.post(f"{address}/predictions/pathmnist?explain=gradcam", data=TILE.read_bytes(), timeout=60)
    assert response.status_code == 200
    assert session.get(f"{address}/ready", timeout=30).json() == {"status": "ready"}


def test_who_does_not_know_the_certificate_does_not_trust_it(address: str) -> None:
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{address}/ping", timeout=10)


def test_without_tls_there_is_no_answer(address: str) -> None:
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(f"{address.replace('https', 'http')}/ping", timeout=10)


def test_check_speaks_tls(address: str, config: Path, token: str) -> None:
    command = [sys.executable, "-m", "serving", "check", "--config", str(config)]
    for borne, code in ((token, 0), ("wrong", 1)):
        environment = {**os.environ, "PATHMNIST_TOKEN": borne}
        finished = subprocess.run(command, cwd=ROOT, env=environment, timeout=60, capture_output=True)
        assert finished.returncode == code


def test_secrets_are_in_no_file(address: str, session: requests.Session, config: Path, token: str) -> None:
    guess = secrets.token_hex(16)
    tile = TILE.read_bytes()
    for options in ({}, {"target": "9"}, {"explain": "gradcam"}):
        session.post(f"{address}/predictions/pathmnist", params=options, data=tile, timeout=60)
    wrong = session.post(
        f"{address}/predictions/pathmnist", headers={"Authorization": f"Bearer {guess}"}, data=tile, timeout=60
    )
    assert wrong.status_code == 401
    session.post(f"{address}/predictions/other", data=tile, timeout=60)
    files = [path for path in config.parent.rglob("*") if path.is_file()]
    assert any(path.name == "torchserve.log" for path in files)
    for path in files:
        content = path.read_bytes()
        assert token.encode() not in content, path.name
        assert guess.encode() not in content, path.name


def test_past_its_burst_a_client_is_refused(address: str, session: requests.Session) -> None:
    """The last test in this file, because it uses up the burst."""
    answers = [session.get(f"{address}/metrics", timeout=30) for _ in range(BURST + 1)]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert session.get(f"{address}/ready", timeout=30).status_code == 200
