"""How far an answer may be believed: calibrated probabilities, prediction sets, and distance from what was learned."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from handler.model.prediction import DecisionRules

CONFIDENCE = "pathmnist_confidence.safetensors"
SCHEMA = 1


class ConfidenceError(ValueError):
    """The file of a calibration does not fit its schema, or belongs to other weights."""


@dataclass(frozen=True, kw_only=True)
class Confidence(DecisionRules):
    """A calibration of one model, as data: the rules of its decisions, and the training tiles' embeddings.

    `class_means` `[9, 512]` and `whitening` `[512, 512]` describe the embeddings: the squared length of
    `(embedding - mean) @ whitening` is the Mahalanobis distance (Lee et al., arXiv 1807.03888).
    """

    class_means: Tensor
    whitening: Tensor

    def ood_scores(self, embeddings: Tensor) -> Tensor:
        """Squared Mahalanobis distance of embeddings `[N, 512]` to the nearest class: `[N]`."""
        points = embeddings @ self.whitening
        centres = self.class_means @ self.whitening
        return (points[:, None] - centres[None]).square().sum(dim=2).amin(dim=1)

    def to(self, device: torch.device | str) -> "Confidence":
        values = {**self.__dict__, "class_means": self.class_means.to(device), "whitening": self.whitening.to(device)}
        return Confidence(**values)


def save_confidence(confidence: Confidence, weights_digest: str, path: Path) -> None:
    """Write a calibration beside the weights it belongs to."""
    settings = {"schema": SCHEMA, "weights_digest": weights_digest, **confidence.rules_json()}
    tensors = {"class_means": confidence.class_means.float(), "whitening": confidence.whitening.float()}
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        path,
        # One entry: safetensors writes several in any order, and the file of a calibration is the same to the last bit.
        metadata={"confidence": json.dumps(settings, sort_keys=True)},
    )


def load_confidence(path: Path, weights_digest: str) -> Confidence | None:
    """Read what `save_confidence` wrote; None where there is no file. Raises `ConfidenceError`."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            settings: dict[str, Any] = json.loads((file.metadata() or {})["confidence"])
            tensors = {name: file.get_tensor(name) for name in ("class_means", "whitening")}
        schema, digest = settings.pop("schema"), settings.pop("weights_digest")
        confidence = Confidence(**DecisionRules.from_json(settings).__dict__, **tensors)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ConfidenceError(f"{path.name} does not fit its schema: {error!r}") from error
    if schema != SCHEMA:
        raise ConfidenceError(f"{path.name} has schema {schema}, expected {SCHEMA}")
    if digest != weights_digest:
        raise ConfidenceError(f"{path.name} belongs to weights {digest}, not {weights_digest}")
    if not confidence.temperature > 0:
        raise ConfidenceError(f"{path.name} has temperature {confidence.temperature}")
    return confidence
