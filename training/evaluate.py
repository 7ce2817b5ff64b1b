"""Score a checkpoint on a split: `python -m training.evaluate --data FILE.npz --split test`."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    recall_score,
)
from torchvision.models import ResNet

from handler.model import load_model
from handler.preprocess import Preprocessing, canonical_tile, network_input
from handler.tissue import CODES, NUM_CLASSES
from training.checkpoint import SHIPPED
from training.data import SPLITS, Split, add_data_argument, load


def predict_probabilities(
    network: ResNet, split: Split, preprocessing: Preprocessing, batch_size: int = 64
) -> NDArray[np.float64]:
    """Class probabilities `[N, 9]` of a split, whatever the size of its tiles."""
    with torch.inference_mode():
        batches = [
            network(network_input(canonical_tile(batch, preprocessing), preprocessing)).softmax(dim=1)
            for batch in torch.from_numpy(split.images).split(batch_size)
        ]
    return torch.cat(batches).double().numpy()


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_argument(parser)
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    arguments = parser.parse_args()
    model = load_model(arguments.checkpoint)
    split = load(arguments.data).split(arguments.split)
    probabilities = predict_probabilities(model.network, split, model.preprocessing)
    print(json.dumps(scores(probabilities, split.labels), indent=2))


if __name__ == "__main__":
    main()
