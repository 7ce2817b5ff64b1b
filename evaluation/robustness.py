"""What re-encoding, blur, colour and stain do to the answers: `python -m evaluation.robustness --data FILE.npz`.

Every change of `evaluation.changes` is made to evenly spaced tiles of the split, and the model answers as the server
does. Reports accuracy with its bootstrap interval, calibration error, and the share still called in distribution. With
`--output FOLDER` writes robustness.json, robustness.md and robustness.svg.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score
from tqdm import tqdm

from evaluation.changes import CHANGES, Changes, change_all
from evaluation.outputs import run_network, spread
from evaluation.plots import save_figure
from evaluation.reliability import apply_temperature, expected_calibration_error
from evaluation.scores import with_interval
from handler.model.checkpoint import Model, load_model
from training.checkpoint import SHIPPED, write_json
from training.data import SPLITS, Split, add_data_argument, load_or_exit

RESAMPLES = 1000
TILES = 1000


def measure(model: Model, split: Split, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Accuracy with its interval, balanced accuracy, calibration error and share in distribution."""
    outputs = run_network(model, Split(images, split.labels))
    temperature = model.confidence.temperature if model.confidence else 1.0
    probabilities = apply_temperature(outputs.logits, temperature)
    predicted = probabilities.argmax(axis=1)
    right = predicted == split.labels
    rows = np.random.default_rng(0).integers(0, len(right), (RESAMPLES, len(right)))
    inside = None
    if model.confidence:
        distances = model.confidence.ood_scores(torch.from_numpy(outputs.embeddings).float())
        inside = round(float((distances <= model.confidence.ood_threshold).float().mean()), 4)
    return {
        "accuracy": round(float(right.mean()), 4),
        "interval": [round(float(value), 4) for value in np.percentile(right[rows].mean(axis=1), (2.5, 97.5))],
        "balanced_accuracy": round(float(balanced_accuracy_score(split.labels, predicted)), 4),
        "calibration_error": round(expected_calibration_error(probabilities, split.labels), 4),
        "in_distribution": inside,
    }


def report(model: Model, split: Split, split_size: int, changes: Changes = CHANGES) -> dict[str, Any]:
    """The unchanged tiles first, then every change at every strength. The tiles are some of `split_size`."""
    found: dict[str, Any] = {"unchanged": {"": measure(model, split, split.images)}}
    for kind, strengths in tqdm(changes.items()):
        found[kind] = {
            strength: measure(model, split, change_all(split.images, change)) for strength, change in strengths.items()
        }
    return {"model": model.digest, "images": len(split), "split_images": split_size, "changes": found}


def markdown(result: dict[str, Any]) -> str:
    """The report as a table."""
    lines = [
        f"{result['images']} of {result['split_images']} tiles, evenly spaced; accuracy with 95 % bootstrap intervals.",
        "",
        "| change | strength | accuracy | balanced | calibration error | in distribution |",
        "|---|---|---|---|---|---|",
    ]
    for kind, strengths in result["changes"].items():
        for strength, row in strengths.items():
            inside = "" if row["in_distribution"] is None else f"{row['in_distribution']:.3f}"
            lines.append(
                f"| {kind} | {strength} | {with_interval(row, 'accuracy')} "
                f"| {row['balanced_accuracy']:.4f} | {row['calibration_error']:.3f} | {inside} |"
            )
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], path: Path) -> None:
    """Accuracy under each change, with its interval; the line is the unchanged split's."""
    rows = [
        (f"{kind} {strength}".strip(), row)
        for kind, strengths in result["changes"].items()
        for strength, row in strengths.items()
    ]
    figure = Figure(figsize=(6, 0.22 * len(rows) + 0.8), layout="constrained")
    axis = figure.subplots()
    for place, (_, row) in enumerate(rows):
        axis.plot(row["interval"], [place, place], color="tab:blue")
        axis.plot(row["accuracy"], place, "o", color="tab:blue", markersize=4)
    axis.axvline(rows[0][1]["accuracy"], color="grey", linestyle=":")
    axis.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("accuracy")
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    parser.add_argument("--tiles", type=int, default=TILES, help="how many tiles, evenly spaced over the split")
    parser.add_argument("--output", type=Path, help="folder for the report")
    arguments = parser.parse_args()
    split = load_or_exit(arguments.data).split(arguments.split)
    result = report(load_model(arguments.checkpoint), spread(split, arguments.tiles), len(split))
    if not arguments.output:
        print(json.dumps(result, indent=2))
        return
    write_json(arguments.output / "robustness.json", result)
    (arguments.output / "robustness.md").write_text(markdown(result))
    plot(result, arguments.output / "robustness.svg")
    print(markdown(result))


if __name__ == "__main__":
    main()
