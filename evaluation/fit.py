"""Which pictures are not fit to be judged? `python -m evaluation.fit --data FILE.npz --output FOLDER`.

Chooses the limits of `handler.model.fit` on validation tiles, as they are and under the changes of
`evaluation.changes`: each limit is the strictest that at most 2 % of the tiles exceed under any change that costs less
than two points of accuracy. Writes them into the checkpoint's calibration; run `evaluation.calibrate` first. Test tiles
judge: fit.json and fit.md in the output folder have the share flagged beside the accuracy lost for every change.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from evaluation.calibrate import table
from evaluation.changes import CHANGES, FAULTS, SHIFTS, Change, change_all
from evaluation.outputs import spread
from evaluation.verdict import predict
from handler.classifier import Classifier
from handler.model.calibration import CONFIDENCE, save_confidence
from handler.model.checkpoint import load_model
from handler.model.engine import Engine
from handler.model.fit import BACKGROUND, Fit, Quality, fit_of, measure, reduced
from handler.model.prediction import FitLimits, Prediction
from training.checkpoint import SHIPPED, write_json
from training.data import Split, add_data_argument, load_or_exit

Numbers = NDArray[np.float64]

TILES = 400
# Accuracy that a change may cost, in points, and still be harmless; and from where on it has to be noticed.
HARMLESS, HARMFUL = 2.0, 10.0
# The share of the tiles under any harmless change that may exceed one limit.
EXCEEDING = 0.02
# Figures of which a small value is the fault.
LOWER = ("focus", "peak", "saturation", "tissue")
UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Seen:
    """Tiles under one change: their figures, their predictions, and whether those are right."""

    qualities: list[Quality]
    predictions: list[Prediction]
    right: NDArray[np.bool_]

    @property
    def points(self) -> float:
        """Accuracy in percent."""
        return float(100 * self.right.mean())

    def faults(self, name: str) -> Numbers:
        """A figure of every tile, `[N]`, larger for a worse picture."""
        if name == "ood_ratio":
            return np.array([(item.ood_score or 0) / (item.ood_threshold or 1) for item in self.predictions])
        values = np.array([getattr(quality, name) for quality in self.qualities])
        if name == "tissue":
            # Glass may lack tissue.
            values[[item.tissue.class_id == BACKGROUND for item in self.predictions]] = 1
        return -values if name in LOWER else values

    def fits(self, limits: FitLimits) -> list[Fit]:
        """The verdict on every tile."""
        pairs = zip(self.qualities, self.predictions, strict=True)
        return [fit_of(quality, prediction, limits) for quality, prediction in pairs]


def look(classifier: Classifier, tiles: Split) -> Seen:
    """Tiles as the server sees them."""
    size = classifier.model.preprocessing.canonical_size
    qualities = measure(np.stack([reduced(image, size) for image in tiles.images]))
    predictions = predict(classifier, tiles)
    predicted = np.array([prediction.tissue.class_id for prediction in predictions])
    return Seen(qualities, predictions, predicted == tiles.labels)


def named(*changes: Mapping[str, Mapping[str, Change]]) -> dict[str, Change]:
    """Every change by its kind and strength."""
    return {
        f"{kind} {strength}": change
        for group in changes
        for kind, steps in group.items()
        for strength, change in steps.items()
    }


def look_at_all(classifier: Classifier, tiles: Split, changes: Mapping[str, Change]) -> dict[str, Seen]:
    """The tiles unchanged, then under every change."""
    seen = {UNCHANGED: look(classifier, tiles)}
    for name, change in tqdm(changes.items(), desc="changes"):
        seen[name] = look(classifier, Split(change_all(tiles.images, change), tiles.labels))
    return seen


def lost(seen: Mapping[str, Seen]) -> dict[str, float]:
    """Points of accuracy that each change costs."""
    return {name: seen[UNCHANGED].points - item.points for name, item in seen.items()}


def choose_limits(seen: Mapping[str, Seen]) -> FitLimits:
    """For each figure, the strictest limit that few tiles exceed under any harmless change."""
    harmless = [seen[name] for name, points in lost(seen).items() if points < HARMLESS]
    limits = {}
    for name in FitLimits.__dataclass_fields__:
        limit = max(float(np.quantile(item.faults(name), 1 - EXCEEDING)) for item in harmless)
        limits[name] = round(-limit if name in LOWER else limit, 4)
    return FitLimits(**limits)


def judge(seen: Mapping[str, Seen], limits: FitLimits) -> dict[str, Any]:
    """For each change the points lost, the shares of verdicts and of reasons, and the share in distribution."""
    return {name: _row(seen[name], limits, points) for name, points in lost(seen).items()}


def _row(seen: Seen, limits: FitLimits, points: float) -> dict[str, Any]:
    fits = seen.fits(limits)
    flagged = np.array([fit.verdict != "fit" for fit in fits])
    reasons = Counter(reason for fit in fits for reason in fit.reasons)
    return {
        "accuracy": round(seen.points / 100, 4),
        "points_lost": round(points, 1),
        "flagged": round(float(flagged.mean()), 3),
        "unfit": round(float(np.mean([fit.verdict == "unfit" for fit in fits])), 3),
        "in_distribution": round(float(np.mean([item.in_distribution is not False for item in seen.predictions])), 3),
        "accuracy_of_fit": round(float(seen.right[~flagged].mean()), 4) if not flagged.all() else None,
        "reasons": {reason: round(count / len(fits), 3) for reason, count in reasons.most_common()},
    }


def aims(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Harmful changes and the smallest share flagged of them, harmless ones and the largest."""
    harmful = {name: row["flagged"] for name, row in rows.items() if row["points_lost"] > HARMFUL}
    harmless = {name: row["flagged"] for name, row in rows.items() if row["points_lost"] < HARMLESS}
    least, most = min(harmful, key=harmful.__getitem__, default=None), max(harmless, key=harmless.__getitem__)
    return {
        "harmful": {"changes": len(harmful), "least_flagged": least, "flagged": harmful[least] if least else None},
        "harmless": {"changes": len(harmless), "most_flagged": most, "flagged": harmless[most]},
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The limits, and a table for each split."""
    limits = table(["figure", *report["limits"]], [["limit", *map("{:g}".format, report["limits"].values())]])
    parts = [
        f"Limits chosen on {report['validation_tiles']} validation tiles under {len(report['validation'])} changes: "
        f"the strictest that at most {EXCEEDING:.0%} of the tiles exceed under any change that costs less than "
        f"{HARMLESS:g} points.",
        limits,
        f"Judged on {report['test_tiles']} of {report['test_split']} test tiles, under changes of other strengths. "
        "Flagged: doubtful or unfit.",
        _table(report["test"]),
        _sentence(report["aims"]["test"]),
        f"The same on the validation tiles. {_sentence(report['aims']['validation'])}",
        _table(report["validation"]),
    ]
    return "\n\n".join(parts) + "\n"


def _table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    head = [
        "change",
        "accuracy",
        "points lost",
        "flagged",
        "unfit",
        "in distribution",
        "accuracy of the fit",
        "reasons",
    ]
    return table(head, [[name, *_cells(row)] for name, row in rows.items()])


def _cells(row: Mapping[str, Any]) -> list[str]:
    reasons = [f"{reason} {share:.2f}" for reason, share in row["reasons"].items() if share >= 0.02]
    fit = "" if row["accuracy_of_fit"] is None else f"{row['accuracy_of_fit']:.3f}"
    shares = [f"{row[name]:.3f}" for name in ("flagged", "unfit", "in_distribution")]
    return [f"{row['accuracy']:.3f}", f"{row['points_lost']:.1f}", *shares, fit, ", ".join(reasons)]


def _sentence(found: Mapping[str, Any]) -> str:
    harmful, harmless = found["harmful"], found["harmless"]
    first = f"No change costs more than {HARMFUL:g} points."
    if harmful["changes"]:
        first = (
            f"Of the {harmful['changes']} changes that cost more than {HARMFUL:g} points, the least flagged is "
            f"{harmful['least_flagged']} ({harmful['flagged']:.1%})."
        )
    return (
        f"{first} Of the {harmless['changes']} that cost less than {HARMLESS:g}, the most flagged is "
        f"{harmless['most_flagged']} ({harmless['flagged']:.1%})."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights, card and calibration")
    parser.add_argument("--tiles", type=int, default=TILES, help="tiles of each split, evenly spaced")
    parser.add_argument("--output", type=Path, required=True, help="folder for the report")
    arguments = parser.parse_args()
    data = load_or_exit(arguments.data)
    model = load_model(arguments.checkpoint)
    if model.confidence is None:
        sys.exit("fit: the checkpoint is not calibrated; run `python -m evaluation.calibrate` first")
    report = evaluate(Classifier(Engine(model, torch.device("cpu"))), data.val, data.test, arguments.tiles)
    limits = FitLimits(**report["limits"])
    save_confidence(replace(model.confidence, fit=limits), model.digest, arguments.checkpoint / CONFIDENCE)
    write_json(arguments.output / "fit.json", report)
    (arguments.output / "fit.md").write_text(markdown(report))
    print(markdown(report))


def evaluate(classifier: Classifier, val: Split, test: Split, tiles: int) -> dict[str, Any]:
    """The limits from validation tiles, and what they flag of both splits."""
    seen = look_at_all(classifier, spread(val, tiles), named(SHIFTS, FAULTS))
    judged = look_at_all(classifier, spread(test, tiles), named(CHANGES))
    limits = choose_limits(seen)
    rows = {"validation": judge(seen, limits), "test": judge(judged, limits)}
    return {
        "model": classifier.model.digest,
        "validation_tiles": min(tiles, len(val)),
        "test_tiles": min(tiles, len(test)),
        "test_split": len(test),
        "limits": asdict(limits),
        "aims": {split: aims(found) for split, found in rows.items()},
        **rows,
    }


if __name__ == "__main__":
    main()
