"""Smaller, faster copies: `python -m export.compress --data FILE.npz` makes an int8 and an fp16 file.

Both keep the types of inputs and outputs, and float32 before the first convolution and after the last. The int8 file
is quantised statically (QDQ, weights per channel), with ranges from training tiles, and keeps as many convolutions in
float32 as validation tiles ask for; test tiles only judge. A file that costs more than half a point of accuracy on the
test tiles is not shipped. The manifest says what each costs and gains, the refused included.
"""

import argparse
import contextlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from export.archive import MODEL_NAME
from export.graph import write_onnx
from export.onnx_file import describe
from export.parity import split_batches
from handler.model.checkpoint import file_digest, load_model
from training.checkpoint import SHIPPED, write_json
from training.data import Split, add_data_argument, load_or_exit

MAX_DROP = 0.005
BATCH_SIZE = 32
CALIBRATION_TILES = 128
PERCENTILE = 99.99
# The first convolutions of the network that stay in float32: none, the stem, or the first or second stage with it. The
# first choice serves that leaves this share of validation tiles their class.
FLOATING = (0, 1, 5, 10)
MIN_AGREEMENT = 0.99
TIMED_ROUNDS = 9


@dataclass(frozen=True)
class Cost:
    """What a file loses and gains against the float32 file, on the same tiles and in the same run.

    `accuracy_drop` is in shares of one, negative for a gain; `speed_up` the ratio of median times for a batch of 32
    under ONNX Runtime on the CPU.
    """

    tiles: int
    accuracy: float
    accuracy_drop: float
    top1_agreement: float
    speed_up: float

    @property
    def shipped(self) -> bool:
        return self.accuracy_drop <= MAX_DROP

    def to_json(self) -> dict[str, Any]:
        return {"shipped": self.shipped, **asdict(self)}


class Calibration(CalibrationDataReader):
    """Tiles, a batch at a time."""

    def __init__(self, tiles: NDArray[np.uint8]) -> None:
        self._batches = iter(split_batches(tiles, BATCH_SIZE))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"image": batch}


def write_int8(source: Path, tiles: NDArray[np.uint8], path: Path, floating: int = 0) -> None:
    """Quantise the network in `source` but for its first `floating` convolutions; `tiles` uint8 `[N, S, S, 3]`."""
    # The calibrator prints its progress.
    with contextlib.redirect_stdout(sys.stderr):
        quantize_static(
            source,
            path,
            Calibration(tiles),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            # Seven bits: without VNNI, x86 adds pairs of 8-bit products in 16 bits, which overflow (13 points lost).
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Nearer to float32 on the validation tiles than the extremes are.
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": PERCENTILE},
            op_types_to_quantize=["Conv", "Add", "MaxPool"],
            nodes_to_exclude=_left_in_float(source, floating),
        )


def write_faithful_int8(source: Path, calibration: NDArray[np.uint8], validation: NDArray[np.uint8], path: Path) -> int:
    """Quantise what leaves `MIN_AGREEMENT` of `validation` its class; returns how many convolutions were spared."""
    expected = predict(open_session(source), validation)
    for floating in FLOATING:
        write_int8(source, calibration, path, floating)
        if (predict(open_session(path), validation) == expected).mean() >= MIN_AGREEMENT:
            break
    return floating


def _left_in_float(source: Path, floating: int) -> list[str]:
    """Nodes of preprocessing, the first convolutions, and all that reads the last feature map."""
    nodes = onnx.load(source, load_external_data=False).graph.node
    first = [node for node in nodes if node.op_type == "Conv"][floating]
    last = [node for node in nodes if node.op_type == "Relu"][-1]
    names = [node.name for node in nodes]
    inside = range(names.index(first.name), names.index(last.name) + 1)
    return [name for index, name in enumerate(names) if index not in inside]


def open_session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def predict(session: onnxruntime.InferenceSession, tiles: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The top class of each tile."""
    batches = split_batches(tiles, BATCH_SIZE)
    return np.concatenate([session.run(["logits"], {"image": batch})[0].argmax(axis=1) for batch in batches])


def measure(reference: Path, candidate: Path, split: Split) -> Cost:
    """Both files on a split; their times are taken in turns."""
    sessions = [open_session(path) for path in (reference, candidate)]
    expected, found = (predict(session, split.images) for session in sessions)
    accuracies = [float((classes == split.labels).mean()) for classes in (expected, found)]
    seconds: list[list[float]] = [[], []]
    for _ in range(TIMED_ROUNDS):
        for session, times in zip(sessions, seconds, strict=True):
            start = time.perf_counter()
            predict(session, split.images[:BATCH_SIZE])
            times.append(time.perf_counter() - start)
    return Cost(
        tiles=len(split),
        accuracy=accuracies[1],
        accuracy_drop=accuracies[0] - accuracies[1],
        top1_agreement=float((expected == found).mean()),
        speed_up=float(np.median(seconds[0]) / np.median(seconds[1])),
    )


def compress(
    checkpoint: Path, store: Path, calibration: NDArray[np.uint8], validation: NDArray[np.uint8], test: Split
) -> dict[str, Any]:
    """Make both files beside the float32 file in `store`, keep those that are accurate, and note it in the manifest.

    Raises `ValueError` where the manifest's model is another.
    """
    model = load_model(checkpoint)
    manifest_file = store / "manifest.json"
    manifest = json.loads(manifest_file.read_text())
    if manifest["model"] != model.identity():
        raise ValueError(f"{manifest_file} is of another model: run `python -m export` first")
    source = store / f"{MODEL_NAME}.onnx"
    files = {name: store / f"{MODEL_NAME}_{name}.onnx" for name in ("int8", "fp16")}
    floating = write_faithful_int8(source, calibration, validation, files["int8"])
    write_onnx(model, describe(model, checkpoint), files["fp16"], precision=torch.float16)
    costs = {}
    for name, path in files.items():
        cost = measure(source, path, test)
        costs[name] = cost.to_json() | ({"float_convolutions": floating} if name == "int8" else {})
        manifest["artifacts"].pop(path.name, None)
        if not cost.shipped:
            path.unlink()
            continue
        manifest["artifacts"][path.name] = {"sha256": file_digest(path), "bytes": path.stat().st_size}
    manifest["compressed"] = costs
    write_json(manifest_file, manifest)
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="folder `python -m export` wrote")
    arguments = parser.parse_args()
    data = load_or_exit(arguments.data)
    try:
        calibration = data.train.spread(CALIBRATION_TILES)
        costs = compress(arguments.checkpoint, arguments.store, calibration, data.val.images, data.test)
    except ValueError as error:
        sys.exit(f"compress: {error}")
    print(json.dumps(costs, indent=2))


if __name__ == "__main__":
    main()
