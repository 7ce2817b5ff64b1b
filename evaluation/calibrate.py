"""Calibrate a checkpoint: `python -m evaluation.calibrate --data FILE.npz --output FOLDER`.

Fits temperature, prediction sets and the out-of-distribution score, writes them beside the weights as
pathmnist_confidence.safetensors, and a report (confidence.json, confidence.md, confidence.svg) to the output folder.
Two choices of calibration tiles are measured: the validation split, and a random half of the test split; both are
judged on the other half. Kept is the one whose sets fall short of their promises least, a promise being a lower bound.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from evaluation.conformal import (
    aps_scores,
    coverage_of,
    describe_halves,
    lac_scores,
    mean_size,
    prediction_sets,
    threshold,
)
from evaluation.out_of_distribution import (
    Score,
    foreign_images,
    gaussian_classes,
    mahalanobis,
    nearest_neighbours,
    separation,
    vim,
)
from evaluation.plots import save_figure
from evaluation.reliability import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    reliability,
    risk_coverage,
)
from handler.model.calibration import CONFIDENCE, Confidence, save_confidence
from handler.model.checkpoint import Model, load_model
from handler.model.engine import Engine
from handler.model.network import embedding
from training.checkpoint import SHIPPED, write_json
from training.data import PathMNIST, add_data_argument, load_or_exit

COVERAGES = ("0.9", "0.95")
BATCH = 64
# Beyond this distance lie one in twenty real tiles.
INSIDE = 0.95
# Random halves over which coverage is averaged.
HALVES = 200
ABSTENTION = (1.0, 0.9, 0.8, 0.7, 0.5)


@dataclass(frozen=True)
class Outputs:
    """What the network gives for a split: embeddings `[N, 512]`, logits `[N, 9]`; and the labels `[N]`."""

    embeddings: NDArray[np.float64]
    logits: NDArray[np.float64]
    labels: NDArray[np.int64]

    def at(self, rows: NDArray[np.int64]) -> "Outputs":
        return Outputs(self.embeddings[rows], self.logits[rows], self.labels[rows])


def run_network(model: Model, images: NDArray[np.uint8], labels: NDArray[np.int64] | None = None) -> Outputs:
    """Embeddings and logits, in batches."""
    engine = Engine(model, torch.device("cpu"))
    embeddings, logits = [], []
    for start in range(0, len(images), BATCH):
        forward = engine.forward(list(images[start : start + BATCH]))
        embeddings.append(embedding(forward.features))
        logits.append(forward.logits)
    known = np.full(len(images), -1) if labels is None else labels
    return Outputs(torch.cat(embeddings).double().numpy(), torch.cat(logits).double().numpy(), known)


def halves(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A fixed random half of a split's rows, and the other."""
    order = np.random.default_rng(0).permutation(count)
    return order[: count // 2], order[count // 2 :]


def judge(calibration: Outputs, judged: Outputs) -> dict[str, Any]:
    """Temperature and set thresholds from one part, what they do on the other."""
    temperature = fit_temperature(calibration.logits, calibration.labels)
    fitted = apply_temperature(calibration.logits, temperature)
    found = apply_temperature(judged.logits, temperature)
    sets: dict[str, Any] = {}
    thresholds: dict[str, float] = {}
    for coverage in COVERAGES:
        sets[coverage] = {}
        for name, scores in (("LAC", lac_scores), ("APS", aps_scores)):
            limit = threshold(scores(fitted), calibration.labels, float(coverage))
            if name == "LAC":
                thresholds[coverage] = max(0.0, 1 - limit)
            chosen = prediction_sets(scores(found), limit)
            sets[coverage][name] = {"coverage": coverage_of(chosen, judged.labels), "size": mean_size(chosen)}
    plain = apply_temperature(judged.logits, 1.0)
    return {
        "tiles": len(calibration.labels),
        "temperature": temperature,
        "thresholds": thresholds,
        "calibration_error": {
            "before": expected_calibration_error(plain, judged.labels),
            "after": expected_calibration_error(found, judged.labels),
        },
        "sets": sets,
    }


def shortfall(sets: dict[str, Any]) -> float:
    """By how much the LAC sets cover less than promised, summed over the promises."""
    return sum(max(0.0, float(promise) - found["LAC"]["coverage"]) for promise, found in sets.items())


def over_halves(outputs: Outputs) -> dict[str, Any]:
    """Coverage of LAC sets calibrated on a random half and judged on the other: what one choice of half leaves open."""
    rng = np.random.default_rng(2)
    orders = [rng.permutation(len(outputs.labels)) for _ in range(HALVES)]
    middle = len(outputs.labels) // 2
    judged = [judge(outputs.at(order[:middle]), outputs.at(order[middle:]))["sets"] for order in orders]
    coverages = {}
    for coverage in COVERAGES:
        values = [sets[coverage]["LAC"]["coverage"] for sets in judged]
        low, high = np.percentile(values, (5, 95))
        coverages[coverage] = {"mean": float(np.mean(values)), "low": float(low), "high": float(high)}
    return {"count": HALVES, "coverage": coverages}


def abstention(outputs: Outputs) -> dict[str, float]:
    """Accuracy on the surest share of tiles; temperature changes no order of these logits' largest by much."""
    coverage, risk = risk_coverage(apply_temperature(outputs.logits, 1.0), outputs.labels)
    return {f"{share:g}": float(1 - risk[np.searchsorted(coverage, share)]) for share in ABSTENTION}


def distances(model: Model, gaussian: Score, train: Outputs, test: Outputs, tiles: NDArray[np.uint8]) -> dict[str, Any]:
    """How well each score tells foreign images from test tiles."""
    scores = {
        "mahalanobis": gaussian,
        "nearest neighbours": nearest_neighbours(train.embeddings),
        "vim": vim(train.embeddings, train.logits),
    }
    inside = {name: score(test.embeddings, test.logits) for name, score in scores.items()}
    found: dict[str, Any] = {name: {} for name in scores}
    for kind, images in foreign_images(tiles).items():
        foreign = run_network(model, images)
        for name, score in scores.items():
            found[name][kind] = separation(inside[name], score(foreign.embeddings, foreign.logits))
    for by_kind in found.values():
        by_kind["mean"] = {
            measure: float(np.mean([entry[measure] for entry in by_kind.values()])) for measure in ("auroc", "fpr95")
        }
    return found


def calibrate(model: Model, data: PathMNIST) -> tuple[Confidence, dict[str, Any]]:
    """The calibration to ship, and the report on how it was chosen."""
    train, val, test = (run_network(model, split.images, split.labels) for split in (data.train, data.val, data.test))
    first, second = halves(len(data.test))
    sources = {
        "the validation split": judge(val, test.at(second)),
        "half of the test split": judge(test.at(first), test.at(second)),
    }
    kept = min(sources, key=lambda name: shortfall(sources[name]["sets"]))
    means, whitening = gaussian_classes(train.embeddings, train.labels)
    source = val if kept == "the validation split" else test.at(first)
    inside = mahalanobis(means, whitening)
    limit = float(np.quantile(inside(source.embeddings, source.logits), INSIDE))
    confidence = Confidence(
        temperature=sources[kept]["temperature"],
        thresholds=sources[kept]["thresholds"],
        ood_threshold=limit,
        calibrated_on=f"{len(source.labels)} tiles: {kept}",
        class_means=torch.from_numpy(means).float(),
        whitening=torch.from_numpy(whitening).float(),
    )
    judged = test.at(second)
    rng = np.random.default_rng(1)
    strange = data.test.images[rng.permutation(len(data.test))[:150]]
    probabilities = apply_temperature(judged.logits, confidence.temperature)
    report = {
        "model": model.digest,
        "judged_on": f"{len(second)} test tiles that calibrated nothing",
        "kept": kept,
        "sources": sources,
        "random_halves": over_halves(test),
        "reliability": reliability(probabilities, judged.labels),
        "accuracy_by_share_answered": abstention(judged),
        "out_of_distribution": {
            "threshold": limit,
            "test_tiles_inside": float((inside(judged.embeddings, judged.logits) <= limit).mean()),
            "scores": distances(model, inside, train, judged, strange),
        },
    }
    return confidence, _rounded(report)


def _rounded(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _rounded(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_rounded(value) for value in values]
    return round(values, 4) if isinstance(values, float) else values


def markdown(report: dict[str, Any]) -> str:
    """The report's tables."""
    lines = [
        f"Judged on {report['judged_on']}. Kept: calibration on {report['kept']}.",
        "",
        "| calibrated on | temperature | calibration error | promised | LAC: coverage, size | APS: coverage, size |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in report["sources"].items():
        error = found["calibration_error"]
        for coverage, sets in found["sets"].items():
            cells = " | ".join(f"{sets[kind]['coverage']:.3f}, {sets[kind]['size']:.2f}" for kind in ("LAC", "APS"))
            lines.append(
                f"| {name} ({found['tiles']}) | {found['temperature']:.3f} "
                f"| {error['before']:.3f}, then {error['after']:.3f} | {coverage} | {cells} |"
            )
    lines += ["", describe_halves(report["random_halves"])]
    lines += ["", "| share of tiles answered | accuracy |", "|---|---|"]
    lines += [f"| {share} | {value:.4f} |" for share, value in report["accuracy_by_share_answered"].items()]
    scores = report["out_of_distribution"]["scores"]
    kinds = list(next(iter(scores.values())))
    lines += ["", f"| AUROC, FPR95 against test tiles | {' | '.join(kinds)} |", "|---" * (len(kinds) + 1) + "|"]
    for name, by_kind in scores.items():
        cells = " | ".join(f"{by_kind[kind]['auroc']:.3f}, {by_kind[kind]['fpr95']:.2f}" for kind in kinds)
        lines.append(f"| {name} | {cells} |")
    inside = report["out_of_distribution"]["test_tiles_inside"]
    lines += ["", f"{inside:.3f} of the judged tiles are called in distribution; {INSIDE} was aimed at."]
    return "\n".join(lines) + "\n"


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
    model = load_model(arguments.checkpoint)
    confidence, report = calibrate(model, data)
    save_confidence(confidence, model.digest, arguments.checkpoint / CONFIDENCE)
    write_json(arguments.output / "confidence.json", report)
    (arguments.output / "confidence.md").write_text(markdown(report))
    plot(report, arguments.output / "confidence.svg")
    print(json.dumps({"kept": report["kept"], "temperature": confidence.temperature}))
    print(markdown(report))


if __name__ == "__main__":
    main()
