"""Calibrate a checkpoint: `python -m evaluation.calibrate --data FILE.npz --output FOLDER`.

Fits temperature, prediction sets and the out-of-distribution score on validation tiles, plain and shifted as another
site or file may shift them, and writes them beside the weights as pathmnist_confidence.safetensors. Every test tile
judges the result: confidence.json, confidence.md and confidence.svg in the output folder.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from evaluation.changes import SHIFTS, Changes, change_all
from evaluation.conformal import aps_scores, holds_truth, lac_scores, mean_size, prediction_sets, threshold
from evaluation.out_of_distribution import (
    Score,
    foreign_images,
    gaussian_classes,
    mahalanobis,
    nearest_neighbours,
    separation,
    vim,
)
from evaluation.outputs import Outputs, join, run_foreign, run_network, spread
from evaluation.plots import save_figure
from evaluation.reliability import (
    Probabilities,
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    reliability,
    risk_coverage,
)
from evaluation.scores import share_with_interval
from handler.model.calibration import CONFIDENCE, Confidence, save_confidence
from handler.model.checkpoint import Model, load_model
from training.checkpoint import SHIPPED, write_json
from training.data import Split, add_data_argument, load_or_exit

COVERAGES = ("0.9", "0.95")
SCORES = {"LAC": lac_scores, "APS": aps_scores}
ABSTENTION = (1.0, 0.9, 0.8, 0.7, 0.5)
# How many tiles of a split are used, evenly spaced over it.
TRAIN_TILES = 6000
VALIDATION_TILES = 5000
SHIFTED_TILES = 1000
FOREIGN_TILES = 100
# Beyond this distance lies one in twenty validation tiles.
INSIDE = 0.95


def run_shifted(model: Model, tiles: Split, changes: Changes) -> dict[str, Outputs]:
    """The outputs for tiles under each change, by its kind and strength."""
    named = {f"{kind} {strength}": change for kind, steps in changes.items() for strength, change in steps.items()}
    return {
        name: run_network(model, Split(change_all(tiles.images, change), tiles.labels))
        for name, change in tqdm(named.items(), desc="shifted tiles")
    }


def set_limits(probabilities: Probabilities, outputs: Outputs) -> dict[str, dict[str, float]]:
    """The largest nonconformity score in a set, by coverage and kind of score."""
    return {
        coverage: {
            name: threshold(scores(probabilities), outputs.labels, float(coverage)) for name, scores in SCORES.items()
        }
        for coverage in COVERAGES
    }


def judge_sets(
    limits: Mapping[str, Mapping[str, float]], probabilities: Probabilities, outputs: Outputs
) -> dict[str, Any]:
    """Coverage of the true class, with its interval, and mean size of the sets, by promise and kind of score."""

    def judge(name: str, limit: float) -> dict[str, Any]:
        sets = prediction_sets(SCORES[name](probabilities), limit)
        return {**share_with_interval(holds_truth(sets, outputs.labels)), "size": mean_size(sets)}

    return {
        coverage: {name: judge(name, limit) for name, limit in by_name.items()} for coverage, by_name in limits.items()
    }


def judge_probabilities(temperature: float, outputs: Outputs) -> dict[str, Any]:
    """Calibration error before and after the temperature, the reliability table, and accuracy by share answered."""
    plain, calibrated = (apply_temperature(outputs.logits, value) for value in (1.0, temperature))
    coverage, risk = risk_coverage(calibrated, outputs.labels)
    return {
        "calibration_error": {
            "before": expected_calibration_error(plain, outputs.labels),
            "after": expected_calibration_error(calibrated, outputs.labels),
        },
        "reliability": reliability(calibrated, outputs.labels),
        "accuracy_by_share_answered": {
            f"{share:g}": float(1 - risk[np.searchsorted(coverage, share)]) for share in ABSTENTION
        },
    }


def judge_distances(gaussian: Score, train: Outputs, test: Outputs, foreign: Mapping[str, Outputs]) -> dict[str, Any]:
    """How well each distance tells images that are no tiles from test tiles."""
    scores = {
        "mahalanobis": gaussian,
        "nearest neighbours": nearest_neighbours(train.embeddings),
        "vim": vim(train.embeddings, train.logits),
    }
    inside = {name: score(test.embeddings, test.logits) for name, score in scores.items()}
    found: dict[str, Any] = {
        name: {
            kind: separation(inside[name], score(outputs.embeddings, outputs.logits))
            for kind, outputs in foreign.items()
        }
        for name, score in scores.items()
    }
    for by_kind in found.values():
        by_kind["mean"] = {
            measure: float(np.mean([entry[measure] for entry in by_kind.values()])) for measure in ("auroc", "fpr95")
        }
    return found


@dataclass(frozen=True)
class Fit:
    """A calibration, and the outputs that it was fitted on: training and validation tiles, the latter shifted too."""

    confidence: Confidence
    limits: dict[str, dict[str, float]]
    distance: Score
    train: Outputs
    validation: dict[str, Outputs]


def fit(model: Model, training: Split, validation: Split) -> Fit:
    """Fit temperature, prediction sets and the out-of-distribution score. Test tiles are no input."""
    train = run_network(model, spread(training, TRAIN_TILES))
    plain = run_network(model, spread(validation, VALIDATION_TILES))
    shifted = run_shifted(model, spread(validation, SHIFTED_TILES), SHIFTS)
    fitted = join([plain, *shifted.values()])
    temperature = fit_temperature(fitted.logits, fitted.labels)
    limits = set_limits(apply_temperature(fitted.logits, temperature), fitted)
    means, whitening = gaussian_classes(train.embeddings, train.labels)
    distance = mahalanobis(means, whitening)
    confidence = Confidence(
        temperature=temperature,
        thresholds={coverage: max(0.0, 1 - by_name["LAC"]) for coverage, by_name in limits.items()},
        ood_threshold=float(np.quantile(distance(plain.embeddings, plain.logits), INSIDE)),
        calibrated_on=describe_fit(len(plain.labels), shifted),
        class_means=torch.from_numpy(means).float(),
        whitening=torch.from_numpy(whitening).float(),
    )
    return Fit(confidence, limits, distance, train, {"plain": plain, **shifted})


def judge(model: Model, fitted: Fit, tiles: Split) -> dict[str, Any]:
    """The report of what a calibration does on test tiles."""
    test = run_network(model, tiles)
    foreign = {
        kind: run_foreign(model, images) for kind, images in foreign_images(spread(tiles, FOREIGN_TILES).images).items()
    }
    confidence, distance = fitted.confidence, fitted.distance
    report = {
        "model": model.digest,
        "calibrated_on": confidence.calibrated_on,
        "test_tiles": len(tiles),
        "temperature": confidence.temperature,
        "validation": {name: outputs.accuracy for name, outputs in fitted.validation.items()},
        "sets": judge_sets(fitted.limits, apply_temperature(test.logits, confidence.temperature), test),
        **judge_probabilities(confidence.temperature, test),
        "out_of_distribution": {
            "threshold": confidence.ood_threshold,
            "test_tiles_inside": float((distance(test.embeddings, test.logits) <= confidence.ood_threshold).mean()),
            "scores": judge_distances(distance, fitted.train, test, foreign),
        },
    }
    found: dict[str, Any] = rounded(report)
    return found


def describe_fit(plain: int, shifted: Mapping[str, Outputs]) -> str:
    """Which tiles calibrated, in words."""
    count = sum(len(outputs.labels) for outputs in shifted.values())
    return f"{plain} validation tiles as they are and {count} shifted ones ({', '.join(SHIFTS)})"


def rounded(values: Any) -> Any:
    """A report with every float rounded to four decimals."""
    if isinstance(values, dict):
        return {name: rounded(value) for name, value in values.items()}
    if isinstance(values, list):
        return [rounded(value) for value in values]
    return round(values, 4) if isinstance(values, float) else values


def markdown(report: dict[str, Any]) -> str:
    """The report's tables."""
    parts = (
        f"Calibrated on {report['calibrated_on']}. Judged on {report['test_tiles']} tiles of the official test split.",
        _sets_table(report),
        _reliability_table(report),
        _abstention_table(report),
        _validation_table(report),
        _distances_table(report["out_of_distribution"]),
    )
    return "\n\n".join(parts) + "\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _sets_table(report: dict[str, Any]) -> str:
    rows = [
        [promise, name, f"{found['share']:.4f} ({found['low']:.4f} to {found['high']:.4f})", f"{found['size']:.2f}"]
        for promise, sets in report["sets"].items()
        for name, found in sets.items()
    ]
    return table(["promised coverage", "sets", "coverage, 95 % interval (Wilson)", "mean size"], rows)


def _reliability_table(report: dict[str, Any]) -> str:
    error = report["calibration_error"]
    rows = [[str(row["tiles"]), f"{row['confidence']:.4f}", f"{row['accuracy']:.4f}"] for row in report["reliability"]]
    return (
        f"Temperature {report['temperature']:.3f}. Expected calibration error {error['before']:.4f} without it, "
        f"{error['after']:.4f} with it.\n\n{table(['test tiles', 'mean confidence', 'accuracy'], rows)}"
    )


def _abstention_table(report: dict[str, Any]) -> str:
    rows = [[share, f"{value:.4f}"] for share, value in report["accuracy_by_share_answered"].items()]
    return table(["share of test tiles answered", "accuracy"], rows)


def _validation_table(report: dict[str, Any]) -> str:
    return table(
        ["validation tiles", "accuracy"], [[name, f"{value:.4f}"] for name, value in report["validation"].items()]
    )


def _distances_table(found: dict[str, Any]) -> str:
    kinds = list(next(iter(found["scores"].values())))
    rows = [
        [name, *(f"{by_kind[kind]['auroc']:.3f}, {by_kind[kind]['fpr95']:.2f}" for kind in kinds)]
        for name, by_kind in found["scores"].items()
    ]
    return (
        f"{table(['AUROC, FPR95 against test tiles', *kinds], rows)}\n\n"
        f"{found['test_tiles_inside']:.3f} of the test tiles are called in distribution."
    )


def plot(report: dict[str, Any], path: Path) -> None:
    """Reliability diagram."""
    figure = Figure(figsize=(4, 4), layout="constrained")
    axis = figure.subplots()
    rows = report["reliability"]
    axis.plot([0, 1], [0, 1], color="grey", linestyle=":")
    sizes = [20 + 300 * row["share"] for row in rows]
    axis.scatter([row["confidence"] for row in rows], [row["accuracy"] for row in rows], s=sizes)
    axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title="calibrated, area: tiles")
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    parser.add_argument("--output", type=Path, required=True, help="folder for the report")
    arguments = parser.parse_args()
    data = load_or_exit(arguments.data)
    # The folder may hold the calibration of earlier weights, which this run replaces.
    model = load_model(arguments.checkpoint, calibrated=False)
    fitted = fit(model, data.train, data.val)
    report = judge(model, fitted, data.test)
    save_confidence(fitted.confidence, model.digest, arguments.checkpoint / CONFIDENCE)
    write_json(arguments.output / "confidence.json", report)
    (arguments.output / "confidence.md").write_text(markdown(report))
    plot(report, arguments.output / "confidence.svg")
    print(markdown(report))


if __name__ == "__main__":
    main()
