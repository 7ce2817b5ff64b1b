"""The model card: `python -m evaluation.card --reports docs/evaluation --output MODEL_CARD.md`.

Every figure is read from the checkpoint's card and the report files of `evaluation.classification`,
`evaluation.robustness` and `evaluation.calibrate`; none is typed.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from evaluation.reports import ReportError, read_reports
from evaluation.scores import with_interval
from handler.classes import CODES, DISCLAIMER, TISSUES
from handler.model.checkpoint import CARD
from training.checkpoint import SHIPPED

# Confusions worth naming: at least this share of a class's tiles.
NOTABLE = 0.1


def write_card(checkpoint: dict[str, Any], reports: dict[str, dict[str, Any]]) -> str:
    """The card as Markdown."""
    sections = {
        f"{checkpoint['name']} {checkpoint['version']}": _summary(checkpoint),
        "Use": _use(),
        "Training": _training(checkpoint["training"]),
        "Accuracy": _accuracy(reports["evaluation"]),
        "Where it fails": _failures(reports["evaluation"]["splits"]["test"]),
        "Robustness": _robustness(reports["robustness"]),
        "Confidence": _confidence(reports["confidence"]),
    }
    title, *rest = sections.items()
    text = f"# {title[0]}\n\n{title[1]}\n"
    return text + "".join(f"\n## {name}\n\n{body}\n" for name, body in rest)


def _summary(checkpoint: dict[str, Any]) -> str:
    return (
        f"ResNet-18 for colorectal histology tiles, nine tissue classes. Weights SHA-256 `{checkpoint['digest']}`, "
        f"licence {checkpoint['licence']}. {DISCLAIMER}"
    )


def _use() -> str:
    classes = ", ".join(f"{tissue.code} ({tissue.name})" for tissue in TISSUES)
    return (
        "Meant for showing, testing and teaching a model server with explanations, and as the start of a training on "
        "the full data. Not meant for diagnosis, for other organs, stains or magnifications, or for tiles that hold "
        f"several tissues.\n\nClasses: {classes}."
    )


def _training(training: dict[str, Any]) -> str:
    return (
        f"{training['data']} (CC BY 4.0, Kather et al., doi 10.1371/journal.pmed.1002730; data digest "
        f"`{training['data_digest'][:12]}`). {_runs(training)}"
    )


def _runs(training: dict[str, Any]) -> str:
    """The last run, and the runs whose weights it continued."""
    teacher = f" Teacher: {training['teacher']}." if training["teacher"] else " No teacher."
    last = (
        f"Recipe `{training['recipe']['name']}`, {training['epochs']} epochs, seed {training['seed']}, commit "
        f"{training['commit']}, {training['date']}.{teacher}"
    )
    before = training.get("continued_from")
    return f"{last} It continued the weights `{before['digest'][:12]}`. {_runs(before['training'])}" if before else last


def _accuracy(report: dict[str, Any]) -> str:
    lines = ["| split | tiles | accuracy | balanced accuracy | AUC |", "|---|---|---|---|---|"]
    for name, found in report["splits"].items():
        cells = " | ".join(with_interval(found[key]) for key in ("accuracy", "balanced_accuracy", "auc"))
        lines.append(f"| {name} | {found['images']} | {cells} |")
    lines += ["", "| class, test | tiles | precision | recall | F1 |", "|---|---|---|---|---|"]
    for code, row in report["splits"]["test"]["classes"].items():
        cells = " | ".join(with_interval(row[key]) for key in ("precision", "recall", "f1"))
        lines.append(f"| {code} | {row['images']} | {cells} |")
    lines += ["", "Intervals: 95 %, bootstrap over tiles. Test tiles come from another site than the others."]
    return "\n".join(lines)


def _failures(test: dict[str, Any]) -> str:
    lines = []
    for truth, row in enumerate(test["confusion_matrix"]):
        total = sum(row)
        for predicted, count in enumerate(row):
            if predicted != truth and total and count / total >= NOTABLE:
                lines.append((count / total, f"- {CODES[truth]} taken for {CODES[predicted]}: {count} of {total}"))
    ordered = [line for _, line in sorted(lines, reverse=True)]
    return "\n".join(ordered) or f"No class is taken for another in {NOTABLE:.0%} of its tiles or more."


def _robustness(report: dict[str, Any]) -> str:
    changes = dict(report["changes"])
    plain = changes.pop("unchanged")[""]["accuracy"]
    lines = [
        f"Accuracy on {report['images']} unchanged tiles, evenly spaced over the {report['split_images']} of the "
        f"official test split: {plain:.4f}.",
        "",
        "| change | worst strength | accuracy there | lost |",
        "|---|---|---|---|",
    ]
    for kind, strengths in changes.items():
        strength, row = min(strengths.items(), key=lambda item: item[1]["accuracy"])
        lines.append(f"| {kind} | {strength} | {with_interval(row, 'accuracy')} | {plain - row['accuracy']:.4f} |")
    return "\n".join(lines)


def _confidence(report: dict[str, Any]) -> str:
    lines = [
        f"Calibrated on {report['calibrated_on']}. Judged on {report['test_tiles']} tiles of the official test split, "
        f"which calibrated nothing. Expected calibration error {report['calibration_error']['after']:.3f}.",
        "",
        "| prediction sets promise | hold the true class | mean size |",
        "|---|---|---|",
    ]
    for promise, sets in report["sets"].items():
        row = sets["LAC"]
        lines.append(f"| {promise} | {row['share']:.4f} ({row['low']:.4f} to {row['high']:.4f}) | {row['size']:.2f} |")
    shares = ", ".join(f"{value:.3f} at {share}" for share, value in report["accuracy_by_share_answered"].items())
    found = report["out_of_distribution"]
    scores = found["scores"]["mahalanobis"]
    kinds = ", ".join(f"{kind} {entry['auroc']:.3f}" for kind, entry in scores.items() if kind != "mean")
    lines += [
        "",
        f"Accuracy if only the surest share is answered: {shares}.",
        "",
        f"Out of distribution, AUROC against test tiles: {kinds}. {found['test_tiles_inside']:.3f} of the test tiles "
        "are called in distribution.",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    parser.add_argument("--reports", type=Path, required=True, help="folder of the reports")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    checkpoint = json.loads((arguments.checkpoint / CARD).read_text())
    try:
        reports = read_reports(arguments.reports, checkpoint["digest"])
    except ReportError as error:
        sys.exit(f"card: {error}")
    arguments.output.write_text(write_card(checkpoint, reports))


if __name__ == "__main__":
    main()
