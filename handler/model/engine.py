"""Runs the network: a list of images to logits and feature maps, in one batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handler.model.backends import Backend, load_backend
from handler.model.checkpoint import Model
from handler.model.network import classify
from handler.model.preprocess import preprocess

Image = NDArray[np.uint8]


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
        self.device = device
        self._feature_map: Backend = load_backend(backend, model, folder, device)

    def identity(self) -> dict[str, Any]:
        """The `model` block of every answer."""
        return {**self.model.identity(), "engine": self.backend}

    def forward(self, images: Sequence[Image]) -> Forward:
        """Classify uint8 RGB images `[H, W, 3]` of any sizes."""
        # A copy of read-only arrays, such as Pillow's: PyTorch warns of those.
        writable = [image if image.flags.writeable else image.copy() for image in images]
        tiles = [torch.from_numpy(image).to(self.device) for image in writable]
        return self.run(preprocess(tiles, self.model.preprocessing))

    def run(self, inputs: Tensor) -> Forward:
        """Classify inputs of the network `[N, 3, I, I]`, in its units and on its device."""
        with torch.no_grad():
            features = self._feature_map(inputs)
            return Forward(inputs, features, classify(self.model.network, features))
