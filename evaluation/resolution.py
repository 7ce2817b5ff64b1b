"""Does a tile get the same answer at 28, 64, 112 and 224 pixels? `python -m evaluation.resolution --data FILE.npz`.

Real tiles are enlarged by Pillow with several filters, as a file on its way to the server might be, and classified
after each of several ways to reduce them to the canonical size; `area` is the one that is served. `direct` skips the
canonical tile and goes straight to the network's input, which is the usual way. Prints JSON.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from handler.model.checkpoint import Model, load_model
from handler.model.preprocess import area_matrix, network_input, normalise, resampling_matrix, triangle
from training.checkpoint import SHIPPED
from training.data import SPLITS, Split, add_data_argument, load
from training.resample import KERNELS

SIZES = (64, 112, 224)
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
Prepare = Callable[[Tensor], Tensor]


def canonical(model: Model, reducing_matrix: Callable[[int, int], Tensor]) -> Prepare:
    """Reduce tiles `[N, 3, S, S]` in [0, 255] to the canonical size, then enlarge to the input."""

    def prepare(tiles: Tensor) -> Tensor:
        reduce = reducing_matrix(tiles.shape[-1], model.preprocessing.canonical_size)
        return network_input((reduce @ tiles @ reduce.T).clamp(0, 255) / 255, model.preprocessing)

    return prepare


def direct(model: Model) -> Prepare:
    """Go straight to the input size."""

    def prepare(tiles: Tensor) -> Tensor:
        resize = resampling_matrix(tiles.shape[-1], model.preprocessing.input_size, triangle)
        return normalise((resize @ tiles @ resize.T) / 255, model.preprocessing)

    return prepare


def probabilities(model: Model, images: NDArray[np.uint8], prepare: Prepare) -> Tensor:
    """Class probabilities `[N, 9]` of images `[N, S, S, 3]`."""
    tiles = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return torch.cat([model.network(prepare(batch.float())).softmax(dim=1) for batch in tiles.split(64)])


def enlarged(images: NDArray[np.uint8], size: int, resampling: Image.Resampling) -> NDArray[np.uint8]:
    """Every image resized by Pillow."""
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), resampling)) for image in images])


def measure(model: Model, split: Split) -> list[dict[str, Any]]:
    """Agreement with the answer at the tiles' own size, and accuracy, for every way, size and filter."""
    ways = {"direct": direct(model), "area": canonical(model, area_matrix)} | {
        name: canonical(model, partial(resampling_matrix, kernel=kernel)) for name, kernel in KERNELS.items()
    }
    expected = probabilities(model, split.images, ways["direct"])
    labels = torch.from_numpy(split.labels)
    rows = []
    for size, (filter_name, resampling) in product(SIZES, FILTERS.items()):
        images = enlarged(split.images, size, resampling)
        for way, prepare in ways.items():
            found = probabilities(model, images, prepare)
            rows.append(
                {
                    "size": size,
                    "enlarged_by": filter_name,
                    "reduced_by": way,
                    "agreement": round(float((found.argmax(1) == expected.argmax(1)).float().mean()), 4),
                    "mean_probability_change": round(float((found - expected).abs().sum(1).mean() / 2), 4),
                    "accuracy": round(float((found.argmax(1) == labels).float().mean()), 4),
                }
            )
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The mean and the worst agreement of each way over sizes and filters."""
    ways = dict.fromkeys(row["reduced_by"] for row in rows)
    agreements = {way: [row["agreement"] for row in rows if row["reduced_by"] == way] for way in ways}
    return {way: {"mean": round(sum(a) / len(a), 4), "worst": min(a)} for way, a in agreements.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_argument(parser)
    parser.add_argument("--split", choices=SPLITS, default="val")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    arguments = parser.parse_args()
    rows = measure(load_model(arguments.checkpoint), load(arguments.data).split(arguments.split))
    print(json.dumps({"summary": summary(rows), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
