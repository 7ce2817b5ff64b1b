"""Are generated tiles copies? `python -m evaluation.memorising --data FILE.npz --samples FOLDER`.

Prints JSON: how far samples are from the nearest training tile, beside real tiles that were not trained on, and how
many samples the classifier calls right. Samples are PNG files whose names begin with their class, as written by
`training.generator`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from evaluation.classification import dihedral
from handler.classes import CODES
from handler.classifier import Classifier
from training.checkpoint import SHIPPED, write_json
from training.data import DataError, Split, add_data_argument, load_or_exit
from training.teachers import load_teacher

CHUNK = 5000

Pixels = NDArray[np.uint8]


def read_samples(folder: Path) -> Split:
    """Read what `write_samples` wrote. Raises `DataError` if there is none, or a name does not begin with a class."""
    files = sorted(folder.glob("*.png"))
    codes = [file.name.split("-")[0] for file in files]
    if not files or not set(codes) <= set(CODES):
        raise DataError(f"{folder} holds no PNG files that are named by their class, such as STR-00.png")
    images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    return Split(images, np.array([CODES.index(code) for code in codes]))


def nearest_distances(images: Pixels, others: Pixels) -> NDArray[np.float64]:
    """For each image `[N, S, S, 3]` the root mean square difference, in grey levels, from the nearest of `others`.

    Each image is compared in its eight turns and mirror images, because the generator learns from those.
    """
    queries = torch.from_numpy(images).permute(0, 3, 1, 2).double()
    views = torch.stack(dihedral(queries)).flatten(2)
    # In float64, since squares of near tiles cancel.
    squares = views.square().sum(dim=2)
    nearest = torch.full_like(squares, torch.inf)
    for chunk in torch.from_numpy(others).split(CHUNK):
        references = chunk.permute(0, 3, 1, 2).reshape(len(chunk), -1).double()
        products = views @ references.T
        distances = squares[..., None] + references.square().sum(dim=1) - 2 * products
        nearest = torch.minimum(nearest, distances.amin(dim=2))
    found: NDArray[np.float64] = (nearest.amin(dim=0).clamp(min=0) / views.shape[2]).sqrt().numpy()
    return found


def memorising(samples: Split, train: Split, unseen: dict[str, Split]) -> dict[str, Any]:
    """Percentiles of the distance to the nearest training tile, for samples and for real tiles not trained on.

    Also the medians of each class, since flat classes are near to each other by nature. A generator that memorises
    gives samples much nearer to training tiles than unseen real tiles are.
    """
    distances = {"samples": nearest_distances(samples.images, train.images)}
    labels = {"samples": samples.labels}
    for name, split in unseen.items():
        distances[name] = nearest_distances(split.images, train.images)
        labels[name] = split.labels
    return {
        name: {
            "percentiles": {str(share): _rounded(np.percentile(found, share)) for share in (0, 1, 5, 25, 50)},
            "class medians": {
                CODES[class_id]: _rounded(np.median(found[labels[name] == class_id]))
                for class_id in sorted(set(labels[name].tolist()))
            },
        }
        for name, found in distances.items()
    }


def recognised(samples: Split, classifier: Classifier, teacher: nn.Module | None) -> dict[str, float | None]:
    """The shares of samples that the classifier calls right and in distribution, and that a teacher calls right."""
    predictions = classifier.predict(list(samples.images))
    right = [prediction.tissue.class_id == label for prediction, label in zip(predictions, samples.labels, strict=True)]
    shares: dict[str, float | None] = {"right": _rounded(np.mean(right))}
    if classifier.model.confidence is not None:
        shares["in distribution"] = _rounded(np.mean([prediction.in_distribution for prediction in predictions]))
    if teacher is not None:
        with torch.inference_mode():
            answers = teacher(torch.from_numpy(samples.images).permute(0, 3, 1, 2).float() / 255).argmax(dim=1)
        shares["right by the teacher"] = _rounded((answers.numpy() == samples.labels).mean())
    return shares


def _rounded(value: Any) -> float:
    return round(float(value), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--samples", type=Path, required=True, help="folder of PNG files")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    parser.add_argument("--teacher", type=Path, help="weights of a teacher that classifies the samples as well")
    parser.add_argument("--output", type=Path, help="JSON file to write as well")
    arguments = parser.parse_args()
    data = load_or_exit(arguments.data)
    try:
        samples = read_samples(arguments.samples)
        teacher = load_teacher(arguments.teacher) if arguments.teacher else None
    except (ValueError, OSError) as error:
        sys.exit(f"memorising: {error}")
    unseen = {f"{name} tiles": data.split(name).of_every_class(len(samples)) for name in ("val", "test")}
    found = {
        "samples": len(samples),
        "recognised": recognised(samples, Classifier.load(arguments.checkpoint), teacher),
        "distance to the nearest training tile": memorising(samples, data.train, unseen),
    }
    print(json.dumps(found, indent=2))
    if arguments.output:
        write_json(arguments.output, found)


if __name__ == "__main__":
    main()
