"""Which file a browser should get: `python -m export.web.agreement --data FILE.npz` compares smaller ones with float32.

Each file classifies the same validation tiles. `map_error` is that of the predicted class's activation map: the norm of
its difference from the float32 file's over the norm of the latter. Prints JSON.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.archive import MODEL_NAME
from export.compress import open_session
from export.parity import split_batches
from export.predictor import CLASSIFYING as SOURCE
from export.predictor import EXPLAINING as EXPLAINING_SOURCE
from export.web.graphs import CLASSIFYING, WEIGHTS, write_graphs
from training.data import add_data_argument, load_or_exit

BATCH_SIZE = 32
PERCENTILES = {"median": 50, "p99": 99, "max": 100}
Outputs = list[NDArray[np.float32]]


def outputs_of(path: Path, tiles: NDArray[np.uint8]) -> Outputs:
    """Logits `[N, 9]` and class activation maps `[N, 9, 7, 7]` of tiles `[N, S, S, 3]`."""
    session = open_session(path)
    batches = [session.run(["logits", "cam"], {"image": batch}) for batch in split_batches(tiles, BATCH_SIZE)]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def compare(found: Outputs, expected: Outputs) -> dict[str, Any]:
    """How far `found` is from `expected`, for the classes that `expected` predicts."""
    classes, rows = expected[0].argmax(axis=1), np.arange(len(expected[0]))
    maps, same = (outputs[1][rows, classes].reshape(len(rows), -1) for outputs in (found, expected))
    errors = np.linalg.norm(maps - same, axis=1) / np.linalg.norm(same, axis=1)
    return {
        "top1_agreement": float((found[0].argmax(axis=1) == classes).mean()),
        "max_logit_difference": float(np.abs(found[0] - expected[0]).max()),
        "max_map_difference": float(np.abs(found[1] - expected[1]).max()),
        "map_error": {name: float(np.percentile(errors, share)) for name, share in PERCENTILES.items()},
        "same_strongest_cell": float((maps.argmax(axis=1) == same.argmax(axis=1)).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--models", type=Path, default=Path("model_store"), help="folder `python -m export` wrote")
    parser.add_argument("--tiles", type=int, default=1000, help="spread evenly over the validation split")
    arguments = parser.parse_args()
    tiles = load_or_exit(arguments.data).val.spread(arguments.tiles)
    expected = outputs_of(arguments.models / SOURCE, tiles)
    report: dict[str, Any] = {"tiles": len(tiles)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_graphs(arguments.models / SOURCE, arguments.models / EXPLAINING_SOURCE, folder)
        half = folder / CLASSIFYING
        size = sum((folder / file).stat().st_size for file in (CLASSIFYING, WEIGHTS))
        report["half-precision weights"] = {"bytes": size, **compare(outputs_of(half, tiles), expected)}
    for kind in ("int8", "fp16"):
        path = arguments.models / f"{MODEL_NAME}_{kind}.onnx"
        if path.is_file():
            report[kind] = {"bytes": path.stat().st_size, **compare(outputs_of(path, tiles), expected)}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
