"""Running the network: a list of images to logits and feature maps, in one batch."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handler.model import Model
from handler.network import classify, feature_map
from handler.preprocess import preprocess


@dataclass(frozen=True)
class Forward:
    """What one pass yields: `inputs` `[N, 3, I, I]`, `features` `[N, 512, h, w]`, `logits` `[N, 9]`."""

    inputs: Tensor
    features: Tensor
    logits: Tensor


class TorchEngine:
    """PyTorch on the model's device."""

    def __init__(self, model: Model, device: torch.device) -> None:
        self._model = model
        self._device = device

    def forward(self, images: list[NDArray[np.uint8]]) -> Forward:
        """Classify uint8 RGB images `[H, W, 3]` of any sizes."""
        with torch.no_grad():
            tiles = [torch.from_numpy(image).to(self._device) for image in images]
            inputs = preprocess(tiles, self._model.preprocessing).contiguous(memory_format=torch.channels_last)
            features = feature_map(self._model.network, inputs)
            return Forward(inputs, features, classify(self._model.network, features))
