"""How often does the class change at another field of view? `python -m evaluation.field_of_view --data FILE.npz`.

A tile shows 112 x 112 micrometres. Each image is classified as it is, at half the field and at twice the field, the
same way as a server classifies an image of which nobody says how large a pixel is. Half: the centre quarter of the
image. Twice: a mosaic of four different tiles of its class, or the image at half the size, with its own reflections
around it. With `--originals`, a folder of 224-pixel PNG files whose names begin with the class, those are measured, and
always evenly spaced validation tiles of 28 pixels, whose half has only 14 pixels of detail. With `--output FOLDER`
writes field_of_view.json and field_of_view.md.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from evaluation.calibrate import rounded, table
from evaluation.resolution import read_originals
from evaluation.scores import share_with_interval
from evaluation.verdict import predict
from handler.classifier import Classifier
from handler.model.checkpoint import load_model
from handler.model.engine import Engine
from training.checkpoint import SHIPPED, write_json
from training.data import DataError, Split, add_data_argument, load_or_exit

TILES = 200
Pixels = NDArray[np.uint8]


def half(tiles: Split) -> Pixels:
    """The centre of every image, of half its sides."""
    side = tiles.images.shape[1]
    middle = slice(side // 4, side // 4 + side // 2)
    return tiles.images[:, middle, middle]


def mosaics(tiles: Split) -> Pixels:
    """Every image with the next three of its class, two by two. A class of fewer than four repeats some."""
    images = np.empty((len(tiles), *(2 * side for side in tiles.images.shape[1:3]), 3), np.uint8)
    for class_id in np.unique(tiles.labels):
        rows = np.flatnonzero(tiles.labels == class_id)
        first, second, third, fourth = (tiles.images[np.roll(rows, -step)] for step in range(4))
        upper, lower = np.concatenate((first, second), axis=2), np.concatenate((third, fourth), axis=2)
        images[rows] = np.concatenate((upper, lower), axis=1)
    return images


def reflected(tiles: Split) -> Pixels:
    """Every image at half its size, with its own reflections around it, so that the sides stay as they were."""
    side = tiles.images.shape[1]
    small = [Image.fromarray(image).resize((side // 2, side // 2), Image.Resampling.BILINEAR) for image in tiles.images]
    margins = (side - side // 2) // 2, side - side // 2 - (side - side // 2) // 2
    return np.stack([np.pad(np.asarray(image), (margins, margins, (0, 0)), mode="symmetric") for image in small])


FIELDS = {
    "half, the centre": half,
    "twice, a mosaic of four tiles of the class": mosaics,
    "twice, with reflections": reflected,
}


def measure(classifier: Classifier, tiles: Split) -> dict[str, Any]:
    """For each field, the share of images whose class changes, and the accuracy; first of the images themselves."""

    def classes(images: Pixels) -> NDArray[np.int64]:
        predictions = predict(classifier, Split(images, tiles.labels))
        return np.array([prediction.tissue.class_id for prediction in predictions])

    own = classes(tiles.images)
    rows: dict[str, Any] = {"a tile's own": {"accuracy": float((own == tiles.labels).mean())}}
    for name, make in FIELDS.items():
        found = classes(make(tiles))
        rows[name] = {
            "changed": share_with_interval(found != own),
            "accuracy": float((found == tiles.labels).mean()),
        }
    return {"images": len(tiles), "pixels": int(tiles.images.shape[1]), "fields": rows}


def markdown(report: dict[str, Any]) -> str:
    """A line for each kind of image and field."""
    lines = []
    for kind, found in report.items():
        for name, row in found["fields"].items():
            changed = row.get("changed")
            share = f"{changed['share']:.3f} ({changed['low']:.3f} to {changed['high']:.3f})" if changed else ""
            lines.append([kind, str(found["images"]), name, share, f"{row['accuracy']:.3f}"])
    return table(["images", "number", "field", "class changed, 95 % interval (Wilson)", "accuracy"], lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--originals", type=Path, help="folder of 224-pixel PNG files named by their class")
    parser.add_argument("--tiles", type=int, default=TILES, help="validation tiles, evenly spaced over the split")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    parser.add_argument("--output", type=Path, help="folder for the report")
    arguments = parser.parse_args()
    kinds: dict[str, Split] = {}
    try:
        if arguments.originals:
            kinds["originals, 224 pixels"] = read_originals(arguments.originals)
    except (DataError, OSError) as error:
        sys.exit(f"originals: {error}")
    kinds["validation tiles, 28 pixels"] = load_or_exit(arguments.data).val.sample(arguments.tiles)
    classifier = Classifier(Engine(load_model(arguments.checkpoint), torch.device("cpu")))
    report = rounded({kind: measure(classifier, tiles) for kind, tiles in kinds.items()})
    print(markdown(report))
    if arguments.output:
        write_json(arguments.output / "field_of_view.json", report)
        (arguments.output / "field_of_view.md").write_text(markdown(report))


if __name__ == "__main__":
    main()
