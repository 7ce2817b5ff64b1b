"""Score a checkpoint, or a file of probabilities: `python -m evaluation.classification --data FILE.npz --split test`.

Prints the split's scores as JSON. With `--output FOLDER` it also writes a report on all three splits (6,000 tiles of
the training split): evaluation.json, evaluation.md, confusion.svg, classes.svg and worst.png.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    recall_score,
)
from torch import Tensor

from evaluation.outputs import spread
from evaluation.scores import measure, with_interval
from handler.classes import CODES, NUM_CLASSES
from handler.model.checkpoint import Model, load_model
from handler.model.preprocess import Preprocessing, canonical_tile, network_input
from handler.model.resnet import ResNet
from training.checkpoint import SHIPPED, write_json
from training.data import SPLITS, DataError, PathMNIST, Split, add_data_argument, load

WORST = 16
# How many training tiles are scored, evenly spaced over their split.
TRAIN_TILES = 6000


def predict_probabilities(
    network: ResNet, split: Split, preprocessing: Preprocessing, batch_size: int = 64, views: int = 1
) -> NDArray[np.float64]:
    """Class probabilities `[N, 9]` of a split, whatever the size of its tiles.

    With `views` up to 8 they are the mean over that many turns and mirror images of each tile.
    """
    with torch.inference_mode():
        batches = torch.from_numpy(split.images).split(batch_size)
        means = [_mean_probabilities(network, batch, preprocessing, views) for batch in batches]
    return torch.cat(means).double().numpy()


def _mean_probabilities(network: ResNet, images: Tensor, preprocessing: Preprocessing, views: int) -> Tensor:
    tiles = canonical_tile(images, preprocessing)
    logits = [network(network_input(view, preprocessing)) for view in dihedral(tiles, views)]
    return torch.stack(logits).softmax(dim=-1).mean(dim=0)


def dihedral(tiles: Tensor, count: int = 8) -> list[Tensor]:
    """The first of the eight turns and mirror images of tiles `[N, 3, S, S]`; tissue has no up or left."""
    return [torch.rot90(tiles.flip(-1) if view >= 4 else tiles, view % 4, dims=(-2, -1)) for view in range(count)]


def scores(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Accuracy, balanced accuracy, recall per class and the confusion matrix (rows: truth), by scikit-learn."""
    predicted = probabilities.argmax(axis=1)
    classes = list(range(NUM_CLASSES))
    recall = recall_score(labels, predicted, labels=classes, average=None, zero_division=0)
    return {
        "images": len(labels),
        "accuracy": round(float(accuracy_score(labels, predicted)), 4),
        "balanced_accuracy": round(float(balanced_accuracy_score(labels, predicted)), 4),
        "recall": {code: round(float(value), 4) for code, value in zip(CODES, recall, strict=True)},
        "confusion_matrix": confusion_matrix(labels, predicted, labels=classes).tolist(),
    }


def read_probabilities(path: Path, index: Path | None, count: int) -> NDArray[np.float64]:
    """Rows of nine probabilities from a CSV file without a header, an index before them allowed.

    `index` names a file with the row of each image, one number per line; without it row i belongs to image i. Raises
    `DataError` if a file cannot be read or the numbers do not fit.
    """
    table = _read_table(path, np.float64, 2)
    if table.shape[1] not in (NUM_CLASSES, NUM_CLASSES + 1):
        raise DataError(f"{path.name} has {table.shape[1]} columns, expected {NUM_CLASSES} or {NUM_CLASSES + 1}")
    rows = np.arange(len(table)) if index is None else _read_table(index, np.int64, 1)
    if len(rows) != count:
        raise DataError(f"{len(rows)} rows of probabilities for {count} images")
    if rows.min() < 0 or rows.max() >= len(table):
        raise DataError(f"the index goes from {rows.min()} to {rows.max()}, {path.name} has {len(table)} rows")
    probabilities: NDArray[np.float64] = table[rows, -NUM_CLASSES:]
    # Written so that NaN is refused.
    if not (probabilities.min() >= 0 and np.abs(probabilities.sum(axis=1) - 1).max() <= 1e-3):
        raise DataError(f"{path.name} does not hold probabilities")
    return probabilities


def _read_table(path: Path, kind: type[np.number[Any]], dimensions: Literal[1, 2]) -> NDArray[Any]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of an empty file
            return np.loadtxt(path, kind, delimiter=",", ndmin=dimensions)
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} cannot be read as numbers: {error}") from error


def report(model: Model, data: PathMNIST) -> dict[str, Any]:
    """Scores on every split, the gaps between them, their class distributions, and the worst test predictions."""
    splits = {}
    worst: list[dict[str, Any]] = []
    for name in SPLITS:
        split = data.split(name) if name != "train" else spread(data.train, TRAIN_TILES)
        probabilities = predict_probabilities(model.network, split, model.preprocessing)
        splits[name] = measure(probabilities, split.labels)
        worst = worst_predictions(probabilities, split.labels, WORST)
    accuracy = {name: splits[name]["accuracy"]["value"] for name in SPLITS}
    return {
        "model": model.identity(),
        "data_digest": data.digest,
        "splits": splits,
        "accuracy_gap": {
            "train to val": round(accuracy["train"] - accuracy["val"], 4),
            "val to test": round(accuracy["val"] - accuracy["test"], 4),
        },
        "classes": class_distribution(data),
        "worst_test_predictions": worst,
    }


def class_distribution(data: PathMNIST) -> dict[str, Any]:
    """Images per class and split, and how far each split's shares are from the training split's.

    The shift is the total variation distance: the share of images that would have to change class.
    """
    counts = {name: np.bincount(data.split(name).labels, minlength=NUM_CLASSES) for name in SPLITS}
    shares = {name: count / count.sum() for name, count in counts.items()}
    return {
        "images": {name: dict(zip(CODES, count.tolist(), strict=True)) for name, count in counts.items()},
        "shift_from_train": {
            name: round(float(np.abs(shares[name] - shares["train"]).sum() / 2), 4) for name in ("val", "test")
        },
    }


def worst_predictions(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], count: int
) -> list[dict[str, Any]]:
    """The wrong predictions the model was surest of."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    order = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")]
    return [
        {
            "index": int(row),
            "truth": CODES[labels[row]],
            "predicted": CODES[predicted[row]],
            "probability": round(float(probabilities[row, predicted[row]]), 4),
        }
        for row in order[:count]
    ]


def markdown(result: dict[str, Any]) -> str:
    """The report's tables."""
    lines = ["| split | images | accuracy | balanced accuracy | AUC |", "|---|---|---|---|---|"]
    for name, found in result["splits"].items():
        cells = [with_interval(found[key]) for key in ("accuracy", "balanced_accuracy", "auc")]
        lines.append(f"| {name} | {found['images']} | {' | '.join(cells)} |")
    test = result["splits"]["test"]
    lines += ["", "| test, class | images | accuracy | precision | recall | F1 |", "|---|---|---|---|---|---|"]
    for code, row in test["classes"].items():
        cells = [with_interval(row[key]) for key in ("precision", "recall", "f1")]
        lines.append(f"| {code} | {row['images']} | {row['accuracy']:.4f} | {' | '.join(cells)} |")
    for name, row in test["averages"].items():
        lines.append(f"| {name} average | | | {row['precision']:.4f} | {row['recall']:.4f} | {row['f1']:.4f} |")
    shift = result["classes"]["shift_from_train"]
    gap = result["accuracy_gap"]
    lines += [
        "",
        f"Accuracy changes by {-gap['train to val']:+.4f} from train to val and by {-gap['val to test']:+.4f} from val "
        f"to test. Class shares differ from the training split's by {shift['val']:.4f} in val and {shift['test']:.4f} "
        "in test.",
        "Intervals are 95 % bootstrap intervals over tiles.",
    ]
    return "\n".join(lines) + "\n"


def write_report(model: Model, data: PathMNIST, folder: Path) -> dict[str, Any]:
    """Measure and write all files of the report."""
    from evaluation.plots import plot_classes, plot_confusion, worst_sheet

    result = report(model, data)
    write_json(folder / "evaluation.json", result)
    (folder / "evaluation.md").write_text(markdown(result))
    plot_confusion(np.array(result["splits"]["test"]["confusion_matrix"]), folder / "confusion.svg")
    plot_classes(result["classes"]["images"], folder / "classes.svg")
    worst_sheet(model, data.test, result["worst_test_predictions"]).save(folder / "worst.png")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    parser.add_argument("--output", type=Path, help="folder for a report on all splits")
    parser.add_argument("--scores", type=Path, help="CSV of probabilities to score instead of a checkpoint")
    parser.add_argument("--index", type=Path, help="the row of --scores for each image, one number per line")
    parser.add_argument("--tta", action="store_true", help="the mean over eight turns and mirror images of each tile")
    arguments = parser.parse_args()
    try:
        data = load(arguments.data)
        split = data.split(arguments.split)
        if arguments.scores:
            probabilities = read_probabilities(arguments.scores, arguments.index, len(split))
            print(json.dumps(measure(probabilities, split.labels), indent=2))
            return
    except DataError as error:
        sys.exit(f"data: {error}")
    model = load_model(arguments.checkpoint)
    if arguments.output:
        print(markdown(write_report(model, data, arguments.output)))
        return
    views = 8 if arguments.tta else 1
    probabilities = predict_probabilities(model.network, split, model.preprocessing, views=views)
    print(json.dumps(scores(probabilities, split.labels), indent=2))


if __name__ == "__main__":
    main()
