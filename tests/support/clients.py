"""Runs the scripts of tests/serving/clients with the clients of other projects."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from serving.supervisor import ROOT

CLIENTS = ROOT / ".venv-clients" / "bin"
SCRIPTS = ROOT / "tests" / "serving" / "clients"


def require_clients() -> None:
    if not (CLIENTS / "schemathesis").exists():
        pytest.skip("make .venv-clients/clients.stamp installs the clients")


def ask_through(script: str, *arguments: str | Path, token: str = "") -> dict[str, Any]:
    """The JSON that a script prints."""
    require_clients()
    command = [str(CLIENTS / "python"), str(SCRIPTS / script), *map(str, arguments)]
    environment = {**os.environ, "TOKEN": token}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert finished.returncode == 0, finished.stderr
    found: dict[str, Any] = json.loads(finished.stdout)
    return found
