"""Runs the scripts of tests/serving/clients with the clients of other projects."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from serving.supervisor import ROOT

CLIENTS = ROOT / ".venv-clients" / "bin"
# MLServer and KServe need different versions of FastAPI.
MLSERVER = ROOT / ".venv-mlserver" / "bin"
SCRIPTS = ROOT / "tests" / "serving" / "clients"


def require_clients(environment: Path = CLIENTS) -> None:
    if not (environment / "python").exists():
        folder = environment.parent.name
        pytest.skip(f"make {folder}/{folder.removeprefix('.venv-')}.stamp installs the clients")


def ask_through(script: str, *arguments: str | Path, token: str = "", environment: Path = CLIENTS) -> dict[str, Any]:
    """The JSON that a script prints."""
    require_clients(environment)
    command = [str(environment / "python"), str(SCRIPTS / script), *map(str, arguments)]
    variables = {**os.environ, "TOKEN": token}
    finished = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=280)
    assert finished.returncode == 0, finished.stderr
    found: dict[str, Any] = json.loads(finished.stdout)
    return found
