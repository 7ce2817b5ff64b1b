"""Reads the reports of a model's evaluation, and none of another model's."""

import json
from pathlib import Path
from typing import Any

REPORTS = ("evaluation", "robustness", "confidence")


class ReportError(ValueError):
    """A report is missing, or is of another model."""


def read_reports(folder: Path, digest: str) -> dict[str, dict[str, Any]]:
    """The reports by name. Raises `ReportError` if one is missing or belongs to other weights."""
    return {name: read_report(folder / f"{name}.json", digest) for name in REPORTS}


def read_report(path: Path, digest: str) -> dict[str, Any]:
    """One report. Raises `ReportError` if it is missing or belongs to other weights."""
    if not path.is_file():
        raise ReportError(f"no report {path}; `make report` writes it")
    report: dict[str, Any] = json.loads(path.read_text())
    model = report["model"]
    measured = model["digest"] if isinstance(model, dict) else model
    if measured != digest:
        raise ReportError(f"{path.name} is of the weights {measured[:12]}, the checkpoint's are {digest[:12]}")
    return report
