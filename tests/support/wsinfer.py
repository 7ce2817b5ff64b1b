"""Runs WSInfer and the Hugging Face Hub's library, which have an environment of their own."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from serving.supervisor import ROOT

PROGRAMS = ROOT / ".venv-wsinfer" / "bin"


def run_wsinfer(program: str, *arguments: str | Path, home: Path) -> str:
    """What a program of that environment prints, without a network.

    WSInfer reads the list of models on the hub at its start; `home` gets an empty one.
    """
    if not (PROGRAMS / "wsinfer").exists():
        pytest.skip("make .venv-wsinfer/wsinfer.stamp installs WSInfer")
    registry = home / ".wsinfer-zoo" / "wsinfer-zoo-registry.json"
    registry.parent.mkdir(exist_ok=True)
    registry.write_text(json.dumps({"models": {}}))
    environment = {**os.environ, "HOME": str(home), "HF_HUB_OFFLINE": "1", "WSINFER_FORCE_CPU": "1"}
    command = [str(PROGRAMS / program), *map(str, arguments)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout
