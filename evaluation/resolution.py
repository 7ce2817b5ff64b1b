"""Does a tile get the same answer at 28, 64 and 224 pixels? `python -m evaluation.resolution --data FILE.npz`.

With `--originals`, a folder of 224-pixel PNG files whose names begin with the class (`STR-….png`), real originals are
compared with their own 28-pixel tiles, which Pillow makes of them as MedMNIST did. Validation tiles are enlarged by
Pillow with several filters, as a file on its way to the server might be. Every image is classified after each way to
reach the network's input: as served, by averaging areas, and resized directly. Prints Markdown.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from handler.classes import CODES
from handler.model.checkpoint import Model, load_model
from handler.model.preprocess import Preprocessing, canonical_tile, network_input, normalise
from training.checkpoint import SHIPPED
from training.data import DataError, Split, add_data_argument, load_or_exit

ORIGINAL = 224
SMALLER = 64
BATCH = 64
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

Pixels = NDArray[np.uint8]
# Images uint8 `[N, H, W, 3]` to the network's input `[N, 3, I, I]`.
Prepare = Callable[[Tensor, Preprocessing], Tensor]


@dataclass(frozen=True)
class Row:
    """Images of one kind under one way, against the answer to their 28-pixel tiles: shares of images."""

    kind: str
    way: str
    images: int
    agreement: float
    accuracy: float


def served(images: Tensor, spec: Preprocessing) -> Tensor:
    return network_input(canonical_tile(images, spec), spec)


def area(images: Tensor, spec: Preprocessing) -> Tensor:
    """Averages of areas in place of Pillow's bilinear reduction."""
    tiles = interpolate(images.movedim(-1, 1).float(), size=spec.canonical_size, mode="area")
    return network_input(tiles / 255, spec)


def direct(images: Tensor, spec: Preprocessing) -> Tensor:
    """Straight to the input size, without the canonical tile: the usual way."""
    pixels = images.movedim(-1, 1).float()
    return normalise(interpolate(pixels, size=spec.input_size, mode="bilinear", antialias=True) / 255, spec)


WAYS: dict[str, Prepare] = {"as served": served, "area": area, "direct": direct}


def read_originals(folder: Path) -> Split:
    """Originals of one size; raises `DataError` if there are none or a name does not begin with a class."""
    files = sorted(folder.glob("*.png"))
    codes = [file.name.split("-")[0] for file in files]
    if not files or not set(codes) <= set(CODES):
        raise DataError(f"{folder} holds no PNG files that are named by their class, such as STR-1.png")
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    if {image.shape for image in images} != {(ORIGINAL, ORIGINAL, 3)}:
        raise DataError(f"{folder} holds images that are not of {ORIGINAL} x {ORIGINAL} pixels")
    return Split(np.stack(images), np.array([CODES.index(code) for code in codes]))


def resized(images: Pixels, size: int, resampling: Image.Resampling) -> Pixels:
    """Every image resized by Pillow."""
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), resampling)) for image in images])


def classes(model: Model, images: Pixels, prepare: Prepare) -> NDArray[np.int64]:
    """The top class of each image `[N, S, S, 3]`."""
    batches = torch.from_numpy(images).split(BATCH)
    with torch.inference_mode():
        return torch.cat([model.network(prepare(batch, model.preprocessing)).argmax(1) for batch in batches]).numpy()


def compare(model: Model, versions: dict[str, Pixels], tiles: Pixels, labels: NDArray[np.int64]) -> Iterator[Row]:
    """Every version of the same images, by kind, under every way, against their canonical tiles."""
    expected = classes(model, tiles, served)
    for (kind, images), (way, prepare) in product(versions.items(), WAYS.items()):
        answers = classes(model, images, prepare)
        agreement, accuracy = (float((answers == others).mean()) for others in (expected, labels))
        yield Row(kind, way, len(images), agreement, accuracy)


def from_originals(model: Model, originals: Split) -> Iterator[Row]:
    """Originals, and their versions of 64 pixels, against their 28-pixel tiles."""
    bilinear = Image.Resampling.BILINEAR
    smaller = resized(originals.images, SMALLER, bilinear)
    versions = {f"original, {ORIGINAL}": originals.images, f"original, {SMALLER}": smaller}
    tiles = resized(originals.images, model.preprocessing.canonical_size, bilinear)
    return compare(model, versions, tiles, originals.labels)


def from_enlarged(model: Model, split: Split) -> Iterator[Row]:
    """Tiles enlarged with every filter against the tiles themselves."""
    versions = {
        f"enlarged to {size}, {name}": resized(split.images, size, resampling)
        for size, (name, resampling) in product((ORIGINAL, SMALLER), FILTERS.items())
    }
    return compare(model, versions, split.images, split.labels)


def difference_from_pillow(images: Pixels, spec: Preprocessing) -> int:
    """The largest difference of a canonical tile from Pillow's bilinear reduction, in grey levels."""
    expected = resized(images, spec.canonical_size, Image.Resampling.BILINEAR)
    tiles = (canonical_tile(torch.from_numpy(images), spec) * 255).round().movedim(1, -1).numpy()
    return int(np.abs(tiles - expected).max())


def markdown(rows: list[Row]) -> str:
    """A table with a line for each kind of image; each cell holds agreement and, in brackets, accuracy."""
    cells = {(row.kind, row.way): f"{row.agreement:.3f} ({row.accuracy:.3f})" for row in rows}
    lines = [f"| image | images | {' | '.join(WAYS)} |", "|---|---|" + "---|" * len(WAYS)]
    for kind, count in dict.fromkeys((row.kind, row.images) for row in rows):
        lines.append(f"| {kind} | {count} | {' | '.join(cells[kind, way] for way in WAYS)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--originals", type=Path, help="folder of 224-pixel PNG files named by their class")
    parser.add_argument("--tiles", type=int, default=198, help="validation tiles to enlarge, spread over the split")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    arguments = parser.parse_args()
    model = load_model(arguments.checkpoint)
    validation = load_or_exit(arguments.data).val.sample(arguments.tiles)
    rows: list[Row] = []
    if arguments.originals:
        try:
            originals = read_originals(arguments.originals)
        except (DataError, OSError) as error:
            sys.exit(f"originals: {error}")
        level = difference_from_pillow(originals.images, model.preprocessing)
        print(f"Largest difference from Pillow on the originals: {level} grey levels.\n")
        rows += from_originals(model, originals)
    rows += from_enlarged(model, validation)
    print(markdown(rows))


if __name__ == "__main__":
    main()
