"""A model: weights, preprocessing, identity and calibration, read from a folder."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from handler.model.calibration import CONFIDENCE, Confidence, load_confidence
from handler.model.network import for_inference, load_network
from handler.model.preprocess import Preprocessing
from handler.model.resnet import ResNet

WEIGHTS = "pathmnist_resnet18.safetensors"
CARD = "pathmnist_resnet18.json"


class ModelError(ValueError):
    """The files of a model are incomplete or do not belong together."""


@dataclass(frozen=True)
class Model:
    """A network with everything needed to serve it.

    `digest` is the SHA-256 of the weights file; `training_data` describes in words what the weights were trained on.
    `network` comes from `for_inference`: BatchNorm folded, channels last, frozen. `confidence` is None if the model is
    not calibrated.
    """

    name: str
    version: str
    digest: str
    training_data: str
    preprocessing: Preprocessing
    network: ResNet
    confidence: Confidence | None = None

    def identity(self) -> dict[str, Any]:
        """The model's part of an answer."""
        return {
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "training_data": self.training_data,
        }


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """A file's digest, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def load_model(folder: Path, device: torch.device | str = "cpu", calibrated: bool = True) -> Model:
    """Read weights and card, and the calibration, if there is one and `calibrated` is not False.

    Raises `ModelError` if the card lacks a key or names other weights, `ConfidenceError` if the calibration does not
    belong to them.
    """
    weights = folder / WEIGHTS
    digest = file_digest(weights)
    try:
        card = json.loads((folder / CARD).read_text())
        expected, name, version = card["digest"], card["name"], card["version"]
        training_data = card["training"]["data"]
        preprocessing = Preprocessing.from_json(card["preprocessing"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{CARD} does not fit its schema: {error!r}") from error
    if digest != expected:
        raise ModelError(f"{WEIGHTS} has SHA-256 {digest}, its card says {expected}")
    network = for_inference(load_network(weights)).to(device)
    confidence = load_confidence(folder / CONFIDENCE, digest) if calibrated else None
    on_device = confidence.to(device) if confidence else None
    return Model(name, version, digest, training_data, preprocessing, network, on_device)
