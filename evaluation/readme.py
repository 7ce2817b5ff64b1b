"""The accuracy table of the README: `python -m evaluation.readme --reports docs/evaluation --readme README.md`.

Writes the table between the lines `BEGIN` and `END` of the README. Every figure is read from the report of
`evaluation.classification`; none is typed.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from evaluation.reports import ReportError, read_report
from handler.model.checkpoint import CARD
from training.checkpoint import SHIPPED

BEGIN = "<!-- accuracy: `make report` writes this table -->"
END = "<!-- end of accuracy -->"
SCORES = {"accuracy": "accuracy", "balanced accuracy": "balanced_accuracy", "AUC": "auc"}


class ReadmeError(ValueError):
    """The README does not mark where the table belongs."""


def accuracy_table(report: dict[str, Any]) -> str:
    """Six rows in Markdown: the scores on test tiles with their intervals, recall by class, accuracy on validation."""
    test, validation = report["splits"]["test"], report["splits"]["val"]
    recalls = ", ".join(f"{code} {row['recall']['value']:.4f}" for code, row in test["classes"].items())
    rows = [
        f"| measured on {test['images']:,} test tiles | | 95 % interval |",
        "|---|---|---|",
        *(_row(name, test[key]) for name, key in SCORES.items()),
        f"| F1, mean over classes | {test['averages']['macro']['f1']:.4f} | |",
        f"| recall by class | {recalls} | |",
        _row(f"accuracy on {validation['images']:,} validation tiles", validation["accuracy"]),
    ]
    return "\n".join(rows)


def _row(name: str, score: dict[str, Any]) -> str:
    low, high = score["interval"]
    return f"| {name} | {score['value']:.4f} | {low:.4f} to {high:.4f} |"


def replace_table(text: str, table: str) -> str:
    """The README's text with `table` between its marks. Raises `ReadmeError` if a mark is missing or not unique."""
    for mark in (BEGIN, END):
        if text.count(mark) != 1:
            raise ReadmeError(f"the line {mark} occurs {text.count(mark)} times, expected once")
    before, rest = text.split(BEGIN)
    if END not in rest:
        raise ReadmeError(f"the line {END} comes before {BEGIN}")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    parser.add_argument("--reports", type=Path, required=True, help="folder of the reports")
    parser.add_argument("--readme", type=Path, required=True, help="the file whose table is replaced")
    arguments = parser.parse_args()
    digest = json.loads((arguments.checkpoint / CARD).read_text())["digest"]
    try:
        report = read_report(arguments.reports / "evaluation.json", digest)
        text = replace_table(arguments.readme.read_text(encoding="utf-8"), accuracy_table(report))
    except (ReportError, ReadmeError) as error:
        sys.exit(f"readme: {error}")
    arguments.readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
