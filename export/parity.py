"""Does the ONNX file give PyTorch's answers? Measured before anything is shipped."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from handler.model.checkpoint import Model
from handler.model.engine import Engine

MAX_LOGIT_DIFFERENCE = 1e-4


class ParityError(RuntimeError):
    """The exported file does not give the checkpoint's answers."""


@dataclass(frozen=True)
class Parity:
    """The largest difference of a logit, and how many of the tiles have the same top class."""

    tiles: int
    max_logit_difference: float
    top1_agreement: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def split_batches(tiles: NDArray[np.uint8], size: int) -> list[NDArray[np.uint8]]:
    """Tiles in batches of at most `size`."""
    return np.split(tiles, range(size, len(tiles), size))


def measure_parity(model: Model, onnx_file: Path, tiles: NDArray[np.uint8], batch_size: int = 32) -> Parity:
    """Compare ONNX Runtime on the CPU with PyTorch on tiles uint8 `[N, S, S, 3]`."""
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    engine = Engine(model, torch.device("cpu"))
    differences, agreements = [], []
    for batch in split_batches(tiles, batch_size):
        expected = engine.forward(list(batch)).logits.numpy()
        found = np.asarray(session.run(["logits"], {"image": batch})[0])
        differences.append(np.abs(found - expected).max())
        agreements.append(found.argmax(axis=1) == expected.argmax(axis=1))
    return Parity(len(tiles), float(max(differences)), float(np.concatenate(agreements).mean()))


def require_parity(parity: Parity) -> None:
    """Raise `ParityError` past 1e-4 in a logit or where any top class differs (NaN included)."""
    if not parity.max_logit_difference <= MAX_LOGIT_DIFFERENCE or parity.top1_agreement < 1:
        raise ParityError(
            f"ONNX Runtime and PyTorch differ: logits by {parity.max_logit_difference:.2e} "
            f"(allowed {MAX_LOGIT_DIFFERENCE:.0e}), top-1 agreement {parity.top1_agreement:.4f} on {parity.tiles} tiles"
        )
