"""The README's accuracy table holds the report's figures, and no other model's."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.readme import BEGIN, END, ReadmeError, accuracy_table, replace_table
from handler.classes import CODES
from handler.model.checkpoint import CARD
from serving.supervisor import ROOT
from training.checkpoint import SHIPPED

REPORTS = ROOT / "docs" / "evaluation"


@pytest.fixture
def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((REPORTS / "evaluation.json").read_text())
    return found


def run_command(reports: Path, readme: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "evaluation.readme", "--reports", str(reports), "--readme", str(readme)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_readme_in_the_repository_is_what_the_report_gives(report: dict[str, Any]) -> None:
    text = (ROOT / "README.md").read_text()
    assert text == replace_table(text, accuracy_table(report))


def test_the_report_is_of_the_shipped_weights(report: dict[str, Any]) -> None:
    assert report["model"]["digest"] == json.loads((SHIPPED / CARD).read_text())["digest"]


def test_the_table_agrees_with_the_confusion_matrix(report: dict[str, Any]) -> None:
    matrix = np.array(report["splits"]["test"]["confusion_matrix"])
    recalls = np.diag(matrix) / matrix.sum(axis=1)
    table = accuracy_table(report)
    assert f"| measured on {matrix.sum():,} test tiles |" in table
    assert f"| accuracy | {np.trace(matrix) / matrix.sum():.4f} |" in table
    assert f"| balanced accuracy | {recalls.mean():.4f} |" in table
    assert ", ".join(f"{code} {recall:.4f}" for code, recall in zip(CODES, recalls, strict=True)) in table


def test_the_command_replaces_an_old_table_and_nothing_else(tmp_path: Path, report: dict[str, Any]) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"Before.\n\n{BEGIN}\n| accuracy | 0.1 |\n{END}\n\nAfter.\n")
    assert run_command(REPORTS, readme).returncode == 0
    assert readme.read_text() == f"Before.\n\n{BEGIN}\n\n{accuracy_table(report)}\n\n{END}\n\nAfter.\n"


def test_reports_of_other_weights_leave_the_readme_as_it_is(tmp_path: Path, report: dict[str, Any]) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(report | {"model": {"digest": "0" * 64}}))
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}\n")
    result = run_command(tmp_path, readme)
    assert result.returncode == 1
    assert result.stderr.startswith("readme: evaluation.json is of the weights 000000000000")
    assert readme.read_text() == f"{BEGIN}\n{END}\n"


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"])
def test_a_readme_without_one_pair_of_marks_is_refused(text: str) -> None:
    with pytest.raises(ReadmeError):
        replace_table(text, "| accuracy |")
