"""The Model tab: the evaluation reports, read from their files. No figure stands in the code."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from demo.markup import table
from handler.classes import TISSUES

SPLITS = {"test": "test", "val": "validation", "train": "training"}


class ReportError(ValueError):
    """A report is missing or not in the form that `make report` writes."""


@dataclass(frozen=True)
class Report:
    """What `make report` found out about one model, file by file."""

    evaluation: Mapping[str, Any]
    confidence: Mapping[str, Any]
    robustness: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the weights that were measured."""
        return str(self.evaluation["model"]["digest"])

    @property
    def splits(self) -> list[str]:
        return [name for name in SPLITS if name in self.evaluation["splits"]]

    def confusion(self, split: str) -> list[list[int]]:
        """Tiles by true class (row) and predicted class (column)."""
        matrix: list[list[int]] = self.evaluation["splits"][split]["confusion_matrix"]
        return matrix


def read_report(folder: Path) -> Report:
    """Read the three reports of a folder; raises `ReportError`."""
    found = {}
    for name in ("evaluation", "confidence", "robustness"):
        path = folder / f"{name}.json"
        try:
            found[name] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            message = f"There is no readable report {path.name} in {folder}; `make report` writes it."
            raise ReportError(message) from error
    digests = {_digest(report["model"]) for report in found.values()}
    if len(digests) > 1:
        raise ReportError(f"The reports in {folder} are of different models; `make report` writes them anew.")
    return Report(**found)


def _digest(model: Any) -> str:
    return str(model["digest"] if isinstance(model, dict) else model)


def summary(report: Report, split: str) -> str:
    """Headline figures and the table of the classes for one split, as HTML."""
    model, found = report.evaluation["model"], report.evaluation["splits"][split]
    figures = "".join(
        f'<div class="figure"><strong>{found[key]["value"]:.4f}</strong><span>{label}<br>'
        f"{_interval(found[key])}</span></div>"
        for key, label in (("accuracy", "accuracy"), ("balanced_accuracy", "balanced accuracy"), ("auc", "AUC"))
    )
    names = {tissue.code: tissue.name for tissue in TISSUES}
    rows = [
        [code, names.get(code, code), str(row["images"]), *(_cell(row[key]) for key in ("precision", "recall", "f1"))]
        for code, row in found["classes"].items()
    ]
    head = ("class", "name", "tiles", "precision", "recall", "F1")
    return (
        f"<h2>{escape(model['name'])} {escape(model['version'])}</h2>"
        f'<p class="hint">Weights {escape(model["digest"][:12])}, which have learned from '
        f"{escape(model['training_data'])}. "
        f"Measured on {found['images']} {SPLITS[split]} tiles; intervals are 95 %.</p>"
        f'<div class="figures">{figures}</div>{table(f"By class, {SPLITS[split]} tiles", head, rows)}'
    )


def trust(report: Report) -> str:
    """What the calibration promises and what was found, as HTML."""
    found = report.confidence
    rows = [
        (promise, f"{sets['LAC']['share']:.3f}", f"{sets['LAC']['size']:.2f}")
        for promise, sets in found["sets"].items()
    ]
    head = ("promised", "sets that hold the true class", "classes in a set, mean")
    note = (
        f"Calibrated on {found['calibrated_on']}, judged on {found['test_tiles']} test tiles. Expected calibration "
        f"error {found['calibration_error']['after']:.3f}."
    )
    return f'<p class="hint">{escape(note)}</p>{table("Prediction sets", head, rows)}'


def _interval(figure: Mapping[str, Any]) -> str:
    low, high = figure["interval"]
    return f"{low:.4f} to {high:.4f}"


def _cell(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:.4f} ({_interval(figure)})"
