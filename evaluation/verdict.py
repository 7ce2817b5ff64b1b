"""From which tumour share a tile is flagged, and at which cost: `python -m evaluation.verdict --data FILE.npz`.

The threshold is chosen on validation tiles: the one with the smallest cost, if a tumour-related tile that is not
flagged costs as much as `MISS_COST` other tiles that are. It is written into the checkpoint's calibration, with the
number of test tiles by confidence and how many of them were right; run `evaluation.calibrate` first. Test tiles judge
the choice: verdict.json and verdict.md in the output folder.
"""

import argparse
import sys
from collections import Counter
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handler.api.verdict import Verdict, verdict_of
from handler.classes import CODES, TUMOUR_RELATED
from handler.classifier import Classifier
from handler.model.calibration import CONFIDENCE, Confidence, save_confidence
from handler.model.checkpoint import load_model
from handler.model.engine import Engine
from handler.model.prediction import Prediction, ReliabilityBin
from training.checkpoint import SHIPPED, write_json
from training.data import Split, add_data_argument, load_or_exit

Shares = NDArray[np.float64]
Flags = NDArray[np.bool_]

# Other tiles flagged for nothing that weigh as much as one tumour-related tile that is not flagged.
MISS_COST = 10
CANDIDATES = np.round(np.arange(0.01, 1.0, 0.01), 2)
# Bounds of the bins of confidence. Most tiles have more than 0.99.
BOUNDS = (0.0, 0.5, 0.7, 0.9, 0.99, 1.0)
BATCH = 256
# Thresholds whose costs the report states for comparison.
OTHERS = (0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True)
class Costs:
    """At one threshold: tumour-related tiles and those of them not flagged, other tiles and those of them flagged."""

    tumour_tiles: int
    missed: int
    other_tiles: int
    flagged: int

    @property
    def total(self) -> int:
        return MISS_COST * self.missed + self.flagged


def is_tumour(labels: NDArray[np.int64]) -> Flags:
    """Whether each label is one of the tumour-related classes."""
    return np.isin(labels, [CODES.index(code) for code in TUMOUR_RELATED])


def costs(flagged: Flags, tumour: Flags) -> Costs:
    """What it costs to flag these tiles."""
    return Costs(
        int(tumour.sum()), int((tumour & ~flagged).sum()), int((~tumour).sum()), int((~tumour & flagged).sum())
    )


def choose_threshold(shares: Shares, tumour: Flags) -> float:
    """The candidate with the smallest cost; of several the smallest, which misses least on other tiles."""
    return float(min(CANDIDATES, key=lambda threshold: costs(shares >= threshold, tumour).total))


def reliability_bins(confidences: Shares, right: Flags) -> tuple[ReliabilityBin, ...]:
    """Tiles by the probability of their predicted class, and how many of them are right."""
    places = np.digitize(confidences, BOUNDS[1:-1])
    return tuple(
        ReliabilityBin(low, high, int((places == place).sum()), int(right[places == place].sum()))
        for place, (low, high) in enumerate(pairwise(BOUNDS))
    )


def predict(classifier: Classifier, split: Split) -> list[Prediction]:
    """The predictions for every tile of a split."""
    starts = range(0, len(split), BATCH)
    return [item for start in starts for item in classifier.predict(list(split.images[start : start + BATCH]))]


def tumour_shares(predictions: list[Prediction]) -> Shares:
    """The probability of the tumour-related classes together, `[N]`."""
    rows = [CODES.index(code) for code in TUMOUR_RELATED]
    return np.array([prediction.probabilities[rows].sum() for prediction in predictions])


def decide(
    confidence: Confidence, validation: tuple[Shares, Flags], predictions: list[Prediction], labels: NDArray[np.int64]
) -> tuple[Confidence, dict[str, Any]]:
    """The calibration with threshold and reliability, and the report of what they do on test tiles."""
    threshold = choose_threshold(*validation)
    predicted = np.array([prediction.tissue.class_id for prediction in predictions])
    confidences = np.array([prediction.probability for prediction in predictions])
    bins = reliability_bins(confidences, predicted == labels)
    decided = replace(confidence, tumour_threshold=threshold, reliability=bins)
    verdicts = [verdict_of(prediction, decided) for prediction in predictions]
    tumour, shares = is_tumour(labels), tumour_shares(predictions)
    flagged = np.array([verdict.tumour_related is True for verdict in verdicts])
    report = {
        "threshold": threshold,
        "miss_cost": MISS_COST,
        "validation": asdict(costs(validation[0] >= threshold, validation[1])),
        "test": asdict(costs(flagged, tumour)),
        "test_by_predicted_class": asdict(costs(is_tumour(predicted), tumour)),
        "test_by_threshold": {
            f"{item:g}": asdict(costs(shares >= item, tumour)) for item in (0.02, 0.05, 0.1, 0.2, 0.5)
        },
        "missed_by_state": _states(verdicts, tumour & ~flagged),
        "states": {
            state: {"tiles": count, "right": _states(verdicts, predicted == labels).get(state, 0)}
            for state, count in _states(verdicts, np.full(len(verdicts), True)).items()
        },
        "reliability": [asdict(item) for item in bins],
    }
    return decided, report


def _states(verdicts: list[Verdict], chosen: Flags) -> dict[str, int]:
    return dict(Counter(verdict.state for verdict, is_chosen in zip(verdicts, chosen, strict=True) if is_chosen))


def markdown(report: dict[str, Any]) -> str:
    """The report's tables."""
    threshold = report["threshold"]
    rows = {
        f"validation tiles, share of at least {threshold:g}": report["validation"],
        f"**test tiles, share of at least {threshold:g}**": report["test"],
        "test tiles, by the predicted class alone": report["test_by_predicted_class"],
        **{f"test tiles, share of at least {name}": found for name, found in report["test_by_threshold"].items()},
    }
    lines = [
        f"A tile is flagged as tumour-related if tumour epithelium and stroma together have at least {threshold:g}. "
        f"This threshold has the smallest cost on validation tiles, if a miss costs as much as {report['miss_cost']} "
        "tiles flagged for nothing.",
        "",
        "| tiles and rule | tumour-related tiles not flagged | other tiles flagged |",
        "|---|---|---|",
        *(
            f"| {name} | {found['missed']} of {found['tumour_tiles']} | {found['flagged']} of {found['other_tiles']} |"
            for name, found in rows.items()
        ),
        "",
        f"State of the verdicts on tumour-related test tiles not flagged: {_counts(report['missed_by_state'])}.",
        "",
        "| verdict | test tiles | whose class is right |",
        "|---|---|---|",
        *(f"| {state} | {found['tiles']} | {found['right']} |" for state, found in report["states"].items()),
        "",
        "| confidence | test tiles | right |",
        "|---|---|---|",
        *(
            f"| {item['low']:g} to {item['high']:g} | {item['tiles']} | {item['right']} |"
            for item in report["reliability"]
        ),
    ]
    return "\n".join(lines) + "\n"


def _counts(states: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.items()) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights, card and calibration")
    parser.add_argument("--output", type=Path, required=True, help="folder for the report")
    arguments = parser.parse_args()
    data = load_or_exit(arguments.data)
    model = load_model(arguments.checkpoint)
    if model.confidence is None:
        sys.exit("verdict: the checkpoint is not calibrated; run `python -m evaluation.calibrate` first")
    classifier = Classifier(Engine(model, torch.device("cpu")))
    validation = tumour_shares(predict(classifier, data.val)), is_tumour(data.val.labels)
    confidence, report = decide(model.confidence, validation, predict(classifier, data.test), data.test.labels)
    save_confidence(confidence, model.digest, arguments.checkpoint / CONFIDENCE)
    write_json(arguments.output / "verdict.json", {"model": model.digest, **report})
    (arguments.output / "verdict.md").write_text(markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()
