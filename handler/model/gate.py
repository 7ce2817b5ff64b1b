"""What an engine has to keep of PyTorch's answers before it may serve."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from handler.model.backends import REDUCED, BackendError
from handler.model.engine import Engine, Image

# The archive's tiles, uint8 [N, S, S, 3], on which engines of reduced precision are compared with PyTorch.
PROBE_TILES = "probe_tiles.npy"
# Noise, coarse and fine, on which the logits of every engine are compared with PyTorch's.
NOISE = [np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (3, 28, 224)]


@dataclass(frozen=True)
class Gate:
    """What an engine has to keep of PyTorch's answers.

    In float32 no logit on noise may differ by more than `tolerance`, in reduced precision by more than
    `reduced_tolerance`, both as shares of the largest logit. In reduced precision the share `agreement` of the
    archive's tiles must get PyTorch's class, and the probability of that class may differ by `probability` on average.
    """

    tolerance: float = 0.001
    reduced_tolerance: float = 0.05
    agreement: float = 0.99
    probability: float = 0.01


def open_within(gate: Gate, name: str, reference: Engine, folder: Path) -> Engine:
    """An engine with its files in `folder` whose logits on noise keep the gate.

    Raises `BackendError`, or what its runtime raises.
    """
    engine = Engine(reference.model, reference.device, name, folder)
    require_logits(engine, reference, gate)
    return engine


def require_logits(engine: Engine, reference: Engine, gate: Gate) -> None:
    """Raise `BackendError` if the logits on noise are too far from PyTorch's."""
    expected = reference.forward(NOISE).logits
    difference = float((engine.forward(NOISE).logits - expected).abs().max() / expected.abs().max())
    allowed = gate.reduced_tolerance if engine.backend in REDUCED else gate.tolerance
    # Written so that a NaN is refused.
    if not difference <= allowed:
        raise BackendError(f"its logits are {difference:.1e} off, allowed {allowed:.1e}")


def require_answers(engine: Engine, reference: Engine, path: Path, gate: Gate) -> None:
    """Raise `BackendError` if classes or probabilities of the archive's tiles are too far from PyTorch's.

    An engine in float32 is not asked: its logits were compared more strictly.
    """
    if engine.backend not in REDUCED:
        return
    try:
        tiles = list(np.load(path, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise BackendError(f"{path.name} cannot be read: {error}") from error
    found, expected = _probabilities(engine, tiles), _probabilities(reference, tiles)
    classes = expected.argmax(dim=1, keepdim=True)
    agreement = float((found.argmax(dim=1, keepdim=True) == classes).float().mean())
    if not agreement >= gate.agreement:
        raise BackendError(f"{agreement:.3f} of {len(tiles)} tiles get PyTorch's class, required {gate.agreement:.3f}")
    shift = float((found - expected).gather(1, classes).abs().mean())
    if not shift <= gate.probability:
        raise BackendError(f"probabilities differ by {shift:.3f} on average, allowed {gate.probability:.3f}")


def _probabilities(engine: Engine, tiles: Sequence[Image], batch: int = 32) -> Tensor:
    temperature = engine.model.confidence.temperature if engine.model.confidence else 1.0
    logits = [engine.forward(tiles[start : start + batch]).logits for start in range(0, len(tiles), batch)]
    return (torch.cat(logits) / temperature).softmax(dim=1)
