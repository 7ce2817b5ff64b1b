"""What each engine of the archive keeps of PyTorch's answers: `python -m export.engines --data FILE.npz` prints JSON.

Every test tile is classified by PyTorch in float32 and by each engine. The exit status is 1 if one that can serve loses
more than half a point of accuracy, or changes more than one class in a hundred.
"""

import argparse
import json
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from export.archive import MODEL_NAME
from export.compress import MAX_DROP
from handler.classifier import Classifier
from handler.model.backends import BACKENDS, BackendError
from handler.model.checkpoint import load_model
from handler.model.engine import Engine
from handler.model.network import class_activation
from handler.model.selection import REFERENCE
from training.data import Split, add_data_argument, load_or_exit

MIN_AGREEMENT = 0.99
BATCH_SIZE = 32


@dataclass(frozen=True)
class Answers:
    """Classes, probabilities `[N, 9]`, prediction sets and verdicts of tiles, and their nine maps `[N, 9, h, w]`."""

    classes: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    sets: list[tuple[int, ...]]
    verdicts: Sequence[str | None]
    maps: NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """An engine against PyTorch on the same tiles.

    `accuracy_drop` is negative for a gain. `same_*` are shares of the tiles. `probability_difference` is that of the
    class that PyTorch gives. `map_error` is the norm of the difference of that class's activation map, over its norm.
    """

    engine: str
    tiles: int
    accuracy: float
    accuracy_drop: float
    same_class: float
    same_set: float
    same_verdict: float
    probability_difference_mean: float
    probability_difference_max: float
    map_error_median: float
    map_error_99th: float

    @property
    def serves(self) -> bool:
        return self.accuracy_drop <= MAX_DROP and self.same_class >= MIN_AGREEMENT


def answer(classifier: Classifier, tiles: NDArray[np.uint8]) -> Answers:
    """An engine's answers to tiles uint8 `[N, S, S, 3]`."""
    predictions, verdicts, maps = [], [], []
    for start in range(0, len(tiles), BATCH_SIZE):
        batch = list(tiles[start : start + BATCH_SIZE])
        forward = classifier.engine.forward(batch)
        found = classifier.predictions(forward)
        predictions += found
        verdicts += [fit.verdict for fit in classifier.fits(batch, found)]
        maps.append(class_activation(classifier.model.network, forward.features).numpy())
    return Answers(
        np.array([prediction.probabilities.argmax() for prediction in predictions]),
        np.stack([prediction.probabilities for prediction in predictions]),
        [tuple(prediction.prediction_sets.get("0.9", ())) for prediction in predictions],
        verdicts,
        np.concatenate(maps),
    )


def compare(name: str, found: Answers, expected: Answers, labels: NDArray[np.int64]) -> Row:
    """An engine's answers beside PyTorch's."""
    rows, classes = np.arange(len(labels)), expected.classes
    shift = np.abs(found.probabilities - expected.probabilities)[rows, classes]
    maps, references = (answers.maps[rows, classes].reshape(len(labels), -1) for answers in (found, expected))
    errors = np.linalg.norm(maps - references, axis=1) / np.linalg.norm(references, axis=1)
    accuracies = [float((answers.classes == labels).mean()) for answers in (found, expected)]
    return Row(
        engine=name,
        tiles=len(labels),
        accuracy=accuracies[0],
        accuracy_drop=accuracies[1] - accuracies[0],
        same_class=float((found.classes == classes).mean()),
        same_set=_equal(found.sets, expected.sets),
        same_verdict=_equal(found.verdicts, expected.verdicts),
        probability_difference_mean=float(shift.mean()),
        probability_difference_max=float(shift.max()),
        map_error_median=float(np.median(errors)),
        map_error_99th=float(np.quantile(errors, 0.99)),
    )


def _equal(found: Sequence[Any], expected: Sequence[Any]) -> float:
    return sum(one == other for one, other in zip(found, expected, strict=True)) / len(expected)


def measure(archive: Path, names: Sequence[str], split: Split) -> list[Row | dict[str, str]]:
    """A row for each engine, or why it cannot be had."""
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(archive) as content:
            content.extractall(folder)
        model = load_model(Path(folder), device)
        expected = answer(Classifier(Engine(model, device)), split.images)
        rows: list[Row | dict[str, str]] = []
        for name in names:
            try:
                engine = Engine(model, device, name, Path(folder))
            except BackendError as error:
                rows.append({"engine": name, "missing": str(error)})
            else:
                rows.append(compare(name, answer(Classifier(engine), split.images), expected, split.labels))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--archive", type=Path, default=Path("model_store", f"{MODEL_NAME}.mar"))
    parser.add_argument("--engines", nargs="+", choices=list(BACKENDS), metavar="NAME", help="default: all but PyTorch")
    arguments = parser.parse_args()
    names = arguments.engines or [name for name in BACKENDS if name != REFERENCE]
    rows = measure(arguments.archive, names, load_or_exit(arguments.data).test)
    print(json.dumps([asdict(row) if isinstance(row, Row) else row for row in rows], indent=2))
    refused = [row.engine for row in rows if isinstance(row, Row) and not row.serves]
    if refused:
        sys.exit(f"engines: {', '.join(refused)} may not serve")


if __name__ == "__main__":
    main()
