"""What the network gives for many tiles."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from handler.model.checkpoint import Model
from handler.model.engine import Engine
from handler.model.network import embedding
from training.data import Split

BATCH = 64
# The label of an image that is no tile: every answer to it is wrong.
NO_CLASS = -1


@dataclass(frozen=True)
class Outputs:
    """Embeddings `[N, 512]`, logits `[N, 9]` and labels `[N]` of tiles."""

    embeddings: NDArray[np.float64]
    logits: NDArray[np.float64]
    labels: NDArray[np.int64]

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Whether each answer is wrong: `[N]`."""
        return self.logits.argmax(axis=1) != self.labels

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return float(1 - self.wrong.mean())


def run_network(model: Model, tiles: Split) -> Outputs:
    """The network's outputs as the server computes them, in batches."""
    engine = Engine(model, torch.device("cpu"))
    embeddings, logits = [], []
    for start in range(0, len(tiles), BATCH):
        forward = engine.forward(list(tiles.images[start : start + BATCH]))
        embeddings.append(embedding(forward.features))
        logits.append(forward.logits)
    return Outputs(torch.cat(embeddings).double().numpy(), torch.cat(logits).double().numpy(), tiles.labels)


def run_foreign(model: Model, images: NDArray[np.uint8]) -> Outputs:
    """The outputs for images that are no tiles."""
    return run_network(model, Split(images, np.full(len(images), NO_CLASS)))


def join(parts: list[Outputs]) -> Outputs:
    """All outputs in one."""
    return Outputs(
        np.concatenate([part.embeddings for part in parts]),
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


def spread(split: Split, count: int) -> Split:
    """Up to `count` tiles, evenly spaced over the split."""
    rows = np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int)
    return Split(split.images[rows], split.labels[rows])
