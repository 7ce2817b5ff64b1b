"""Runs the network: a list of images to logits and feature maps, in one batch."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handler.model.backends import Backend, load_backend
from handler.model.checkpoint import Model, load_model
from handler.model.network import classify
from handler.model.preprocess import preprocess

logger = logging.getLogger(__name__)

Image = NDArray[np.uint8]

# Noise, coarse and fine, on which a backend is compared with PyTorch before it serves.
PROBE = [np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (3, 28, 224)]


@dataclass(frozen=True)
class Forward:
    """One pass of the network: `inputs` `[N, 3, I, I]`, `features` `[N, 512, h, w]`, `logits` `[N, 9]`."""

    inputs: Tensor
    features: Tensor
    logits: Tensor

    def split(self) -> list["Forward"]:
        """The part of each image, with N = 1."""
        parts = zip(self.inputs.split(1), self.features.split(1), self.logits.split(1), strict=True)
        return [Forward(*part) for part in parts]


class Engine:
    """Preprocessing and the last layer in PyTorch, the network between them in a backend, all on one device."""

    def __init__(self, model: Model, device: torch.device, backend: str = "torch", folder: Path = Path()) -> None:
        """Load a backend, with its file from `folder`. Raises `BackendError` if it cannot be used."""
        self.model = model
        self.backend = backend
        self._device = device
        self._feature_map: Backend = load_backend(backend, model, folder, device)

    def identity(self) -> dict[str, Any]:
        """The `model` block of every answer."""
        return {**self.model.identity(), "engine": self.backend}

    def forward(self, images: Sequence[Image]) -> Forward:
        """Classify uint8 RGB images `[H, W, 3]` of any sizes."""
        tiles = [torch.from_numpy(image).to(self._device) for image in images]
        return self.run(preprocess(tiles, self.model.preprocessing))

    def run(self, inputs: Tensor) -> Forward:
        """Classify inputs of the network `[N, 3, I, I]`, in its units and on its device."""
        with torch.no_grad():
            features = self._feature_map(inputs)
            return Forward(inputs, features, classify(self.model.network, features))


def open_engine(folder: Path, device: torch.device, settings: dict[str, Any]) -> Engine:
    """The engine of an unpacked archive, chosen by the block `engine` of its model-config.yaml.

    Raises what `load_model` raises.
    """
    backends = settings.get(device.type, ["torch"])
    engine = choose_engine(load_model(folder, device), device, folder, backends, settings.get("tolerance", 0))
    if device.type == "cpu" and engine.backend != "torch":
        # The backend has the cores. Threads of PyTorch's own would spin between its operations and take them away.
        torch.set_num_threads(1)
    return engine


def choose_engine(
    model: Model, device: torch.device, folder: Path, backends: Sequence[str], tolerance: float
) -> Engine:
    """The first of `backends` that can be had here and gives PyTorch's logits, and PyTorch where none does.

    `tolerance` is the largest difference of a logit allowed on noise, as a share of the largest logit.
    """
    reference = Engine(model, device)
    others = list(takewhile(lambda name: name != reference.backend, backends))
    if not others:
        return reference
    expected = reference.forward(PROBE).logits
    for name in others:
        try:
            engine = Engine(model, device, name, folder)
            difference = (engine.forward(PROBE).logits - expected).abs().max() / expected.abs().max()
        except Exception as error:  # each runtime has its own, and none of them may keep the model from serving
            logger.info("the backend %s is left out: %s", name, error)
            continue
        if difference <= tolerance:
            logger.info("the backend %s serves, its logits within %.1e of PyTorch's", name, difference)
            return engine
        logger.warning("the backend %s is left out: its logits are %.1e off, allowed %.1e", name, difference, tolerance)
    return reference
