"""Whether maps find the tile that they should: `python -m evaluation.mosaics --data FILE.npz --output FOLDER`.

A mosaic shows four test tiles of four classes, two by two, each of which the network classifies correctly alone. The
map of a class should lie on that class's tile. For every method of the server, a random map and an edge detector, this
measures how often the strongest point lies there (the pointing game, Zhang et al., arXiv 1608.00507) and the share of
the map that does (Arias-Duart et al., arXiv 2109.15035); chance gives 0.25 for both. A contrast of two classes should
be positive on one class's tile and negative on the other's. Means come with 95 % bootstrap intervals. Writes
mosaics.json and mosaics.md after every method; a run that was ended continues there.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from evaluation.classification import predict_probabilities
from evaluation.explanations import CONTROLS, EVALUATED, GRID, interval
from evaluation.faithfulness import edge_map
from handler.api.render import strength_of
from handler.classes import NUM_CLASSES
from handler.classifier import Classifier
from handler.explain.registry import METHODS
from handler.model.checkpoint import Model
from handler.model.preprocess import Preprocessing, network_input
from training.checkpoint import SHIPPED, write_json
from training.data import Split, add_data_argument, as_tiles, load_or_exit

QUARTERS = 4
BATCH = 8
# Methods whose signed maps are cheap enough to compute again for contrasts.
SIGNED = ("gradcam", "input_x_gradient")

Map = NDArray[np.float32]
Signed = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Mosaic:
    """The network's inputs `[3, I, I]`, made of four tiles, and the classes of the tiles row by row.

    The explained class is that of quarter `target`, the class to contrast it with that of quarter `contrast`.
    """

    inputs: Tensor
    classes: tuple[int, ...]
    target: int
    contrast: int


def make_mosaics(split: Split, preprocessing: Preprocessing, count: int, seed: int = 0) -> list[Mosaic]:
    """Mosaics of tiles of a split; every class is explained equally often."""
    random = np.random.default_rng(seed)
    by_class = [np.flatnonzero(split.labels == class_id) for class_id in range(NUM_CLASSES)]
    mosaics = []
    for number in range(count):
        target_class = number % NUM_CLASSES
        others = random.permutation(np.delete(np.arange(NUM_CLASSES), target_class))[: QUARTERS - 1]
        classes = random.permutation([target_class, *others])
        chosen = np.array([random.choice(by_class[class_id]) for class_id in classes])
        target = int(np.flatnonzero(classes == target_class)[0])
        contrast = (target + int(random.integers(1, QUARTERS))) % QUARTERS
        tiles = as_tiles(Split(split.images[chosen], split.labels[chosen]))
        mosaics.append(Mosaic(join(tiles, preprocessing), tuple(classes.tolist()), target, contrast))
    return mosaics


def join(tiles: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Four tiles `[4, 3, S, S]` as one input `[3, I, I]`, each enlarged alone, so that none bleeds into another."""
    half = replace(preprocessing, input_size=preprocessing.input_size // 2)
    upper_left, upper_right, lower_left, lower_right = network_input(tiles, half)
    rows = (torch.cat([upper_left, upper_right], dim=2), torch.cat([lower_left, lower_right], dim=2))
    return torch.cat(rows, dim=1)


def quarters(strength: Map, size: int) -> Map:
    """A map `[h, w]`, enlarged to `size` as it is drawn, cut into quarters `[4, size / 2, size / 2]`."""
    enlarged = interpolate(torch.from_numpy(strength)[None, None], (size, size), mode="bilinear", align_corners=False)
    parts: Map = enlarged[0, 0].unfold(0, size // 2, size // 2).unfold(1, size // 2, size // 2).flatten(0, 1).numpy()
    return parts


def pointing(parts: Map, quarter: int) -> float:
    """1 if the strongest point is in that quarter, 0 if not; a tie counts by its share of points there."""
    strongest = parts == parts.max()
    return float(strongest[quarter].sum() / strongest.sum())


def mass_share(parts: Map, quarter: int) -> float:
    """The share of a map without negative values that lies in that quarter; 0.25 if the map is empty."""
    total = parts.sum(dtype=np.float64)
    return float(parts[quarter].sum(dtype=np.float64) / total) if total > 0 else 1 / QUARTERS


def attributions(classifier: Classifier, name: str, mosaics: Sequence[Mosaic], contrasted: bool) -> Iterator[Signed]:
    """The signed map of each mosaic's target, or of the target minus the contrast."""
    for start in range(0, len(mosaics), BATCH):
        batch = mosaics[start : start + BATCH]
        explanations = classifier.explain_inputs(
            torch.stack([mosaic.inputs for mosaic in batch]),
            name,
            [mosaic.classes[mosaic.target] for mosaic in batch],
            [mosaic.classes[mosaic.contrast] for mosaic in batch] if contrasted else None,
        )
        yield from (explanation.attribution for explanation in explanations)


def control(name: str, mosaic: Mosaic, number: int) -> Map:
    """A map that ignores the network."""
    if name == "edge detector":
        return edge_map(mosaic.inputs.permute(1, 2, 0).numpy()).numpy()
    return np.random.default_rng(number).random((GRID, GRID), dtype=np.float32)


def localise(strengths: Iterable[Map], mosaics: Sequence[Mosaic]) -> dict[str, Any]:
    """Both measures of maps without negative values, on the tile of the explained class."""
    points, shares = [], []
    for strength, mosaic in zip(strengths, mosaics, strict=True):
        parts = quarters(strength, mosaic.inputs.shape[-1])
        points.append(pointing(parts, mosaic.target))
        shares.append(mass_share(parts, mosaic.target))
    return {"pointing": summary(points), "share": summary(shares)}


def contrast(signed: Iterable[Signed], mosaics: Sequence[Mosaic]) -> dict[str, Any]:
    """The share of the positive map on the target's tile, and of the negative map on the contrasted class's tile."""
    shares: dict[str, list[float]] = {"for": [], "against": []}
    for values, mosaic in zip(signed, mosaics, strict=True):
        flat = strength_of(values, "signed")
        for name, sign, place in (("for", 1, mosaic.target), ("against", -1, mosaic.contrast)):
            parts = quarters(np.maximum(sign * flat, 0).astype(np.float32), mosaic.inputs.shape[-1])
            shares[name].append(mass_share(parts, place))
    return {name: summary(values) for name, values in shares.items()}


def summary(values: Sequence[float]) -> dict[str, Any]:
    """The mean and its interval."""
    array = np.array(values)
    return {"mean": float(array.mean()), "interval": interval(array)}


def evaluate(classifier: Classifier, name: str, mosaics: Sequence[Mosaic]) -> dict[str, Any]:
    """All measures of a method or a control."""
    if name in CONTROLS:
        return localise((control(name, mosaic, number) for number, mosaic in enumerate(mosaics)), mosaics)
    maps = attributions(classifier, name, mosaics, contrasted=False)
    found = localise((strength_of(values, METHODS[name].display) for values in maps), mosaics)
    if name in SIGNED:
        found["contrast"] = contrast(attributions(classifier, name, mosaics, contrasted=True), mosaics)
    return found


def measured(path: Path, conditions: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier run under the same conditions measured, by method."""
    if not path.is_file():
        return {}
    report: dict[str, Any] = json.loads(path.read_text())
    return report["methods"] if all(report.get(name) == value for name, value in conditions.items()) else {}


def recognised(model: Model, split: Split) -> Split:
    """The tiles of a split that the network classifies correctly."""
    right = predict_probabilities(model.network, split, model.preprocessing).argmax(axis=1) == split.labels
    return Split(split.images[right], split.labels[right])


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a table."""
    lines = [
        f"Means over {report['mosaics']} mosaics of four test tiles with 95 % bootstrap intervals; chance is 0.25.",
        "",
        "| map | strongest point on the class's tile | share on the class's tile | contrast: positive share on the "
        "class's tile | contrast: negative share on the other class's tile |",
        "|---|---|---|---|---|",
    ]
    for name, measures in report["methods"].items():
        contrasted = measures.get("contrast", {})
        cells = (measures["pointing"], measures["share"], contrasted.get("for"), contrasted.get("against"))
        lines.append(f"| {name} | {' | '.join(_cell(entry) for entry in cells)} |")
    return "\n".join(lines) + "\n"


def _cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return ""
    low, high = entry["interval"]
    return f"{entry['mean']:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--mosaics", type=int, default=504, help="how many")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    parser.add_argument("--output", type=Path, required=True, help="folder for the report")
    arguments = parser.parse_args()
    classifier = Classifier.load(arguments.checkpoint)
    tiles = recognised(classifier.model, load_or_exit(arguments.data).test)
    mosaics = make_mosaics(tiles, classifier.model.preprocessing, arguments.mosaics)
    conditions = {"model": classifier.model.digest, "mosaics": len(mosaics)}
    path = arguments.output / "mosaics.json"
    methods = measured(path, conditions)
    for name in tqdm([name for name in (*CONTROLS, *EVALUATED) if name not in methods], desc="methods"):
        methods[name] = evaluate(classifier, name, mosaics)
        report = {**conditions, "methods": methods}
        write_json(path, report)
        path.with_suffix(".md").write_text(markdown(report))


if __name__ == "__main__":
    main()
