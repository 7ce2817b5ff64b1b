"""The largest values in the network on training tiles, from which `python -m export` makes the network in int8.

`python -m export.ranges --data FILE.npz` writes them beside the weights.
"""

import argparse
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from handler.model.checkpoint import Model, load_model
from handler.model.network import feature_map
from handler.model.preprocess import preprocess
from training.checkpoint import SHIPPED, write_json
from training.data import add_data_argument, load_or_exit
from training.shifts import SHIFTS, shift

RANGES = "pathmnist_ranges.json"
TILES = 512
BATCH_SIZE = 32


class RangesError(ValueError):
    """The ranges are of other weights."""


@dataclass(frozen=True)
class Ranges:
    """The largest input of each convolution but the first, by its name in the network.

    These inputs are never negative. `digest` is that of the weights, `tiles` the number of training tiles; each counts
    as it is and after every shift of `training.shifts`.
    """

    digest: str
    tiles: int
    maxima: dict[str, float]


def read_ranges(checkpoint: Path, digest: str) -> Ranges | None:
    """The ranges in a checkpoint folder; None if it has none. Raises `RangesError` if they are of other weights."""
    path = checkpoint / RANGES
    if not path.is_file():
        return None
    ranges = Ranges(**json.loads(path.read_text()))
    if ranges.digest != digest:
        raise RangesError(f"{RANGES} is of other weights; make it again with python -m export.ranges")
    return ranges


def measure_ranges(model: Model, tiles: NDArray[np.uint8]) -> Ranges:
    """The ranges over tiles uint8 `[N, S, S, 3]` and their shifts."""
    maxima: dict[str, float] = {}
    plain = torch.from_numpy(tiles).movedim(3, 1) / 255
    with _recorded(model.network, maxima), torch.no_grad():
        for variant in (plain, *(shift(name, plain) for name in SHIFTS)):
            pixels = (variant * 255).round().to(torch.uint8).movedim(1, 3)
            for batch in pixels.split(BATCH_SIZE):
                feature_map(model.network, preprocess(list(batch), model.preprocessing))
    return Ranges(model.digest, len(tiles), maxima)


@contextmanager
def _recorded(network: nn.Module, maxima: dict[str, float]) -> Iterator[None]:
    def hook(name: str) -> torch.utils.hooks.RemovableHandle:
        def record(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            maxima[name] = max(maxima.get(name, -math.inf), float(inputs[0].max()))

        return convolutions[name].register_forward_pre_hook(record)

    convolutions = {name: item for name, item in network.named_modules() if isinstance(item, nn.Conv2d)}
    _, *others = convolutions
    handles = [hook(name) for name in others]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    arguments = parser.parse_args()
    training = load_or_exit(arguments.data).train
    count = min(TILES, len(training))
    chosen = np.random.default_rng(0).choice(len(training), count, replace=False)
    ranges = measure_ranges(load_model(arguments.checkpoint), training.images[np.sort(chosen)])
    rounded = {name: float(f"{value:.4g}") for name, value in ranges.maxima.items()}
    write_json(arguments.checkpoint / RANGES, {"digest": ranges.digest, "tiles": ranges.tiles, "maxima": rounded})


if __name__ == "__main__":
    main()
