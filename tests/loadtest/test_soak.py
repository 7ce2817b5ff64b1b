import json
import subprocess
import sys
from pathlib import Path

from serving.supervisor import ROOT
from tests.support.processes import PROCESSES


def test_a_soak_reports_every_process(model_store: Path) -> None:
    command = [sys.executable, "-m", "loadtest.soak", "--requests", "80", "--model-store", str(model_store)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    report = json.loads(finished.stdout)
    assert (finished.returncode, report["failures"]) == (0, 0), report["reasons"]
    assert sorted(name.split()[0] for name in report["memory"]) == PROCESSES
    for name, sizes in report["memory"].items():
        assert sizes["end_mib"] > (5 if name.startswith("proxy") else 10)
