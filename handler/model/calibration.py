"""How far an answer may be believed: calibrated probabilities, prediction sets, and distance from what was learned."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

CONFIDENCE = "pathmnist_confidence.safetensors"
SCHEMA = 1


class ConfidenceError(ValueError):
    """The file of a calibration does not fit its schema, or belongs to other weights."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Test tiles whose predicted class has a probability from `low` to below `high`, or to 1 if `high` is 1: how many
    there are, and for how many the class is right."""

    low: float
    high: float
    tiles: int
    right: int


@dataclass(frozen=True)
class Confidence:
    """A calibration of one model, as data.

    `temperature` divides the logits (Guo et al., arXiv 1706.04599). `thresholds` give, for a coverage such as `0.9`,
    the smallest calibrated probability with which a class belongs to the prediction set (LAC: Sadinle et al., arXiv
    1609.00451). `class_means` `[9, 512]` and `whitening` `[512, 512]` describe the training tiles' embeddings: the
    squared length of `(embedding - mean) @ whitening` is the Mahalanobis distance (Lee et al., arXiv 1807.03888), and
    `ood_threshold` the one that 95 % of real tiles stay under. `calibrated_on` says in words which tiles were used.

    `tumour_threshold` is the probability of tumour epithelium and stroma together from which a tile is called
    tumour-related; `reliability` counts the test tiles by confidence (evaluation/verdict.py). Both may be missing.
    """

    temperature: float
    thresholds: Mapping[str, float]
    ood_threshold: float
    calibrated_on: str
    class_means: Tensor
    whitening: Tensor
    tumour_threshold: float | None = None
    reliability: tuple[ReliabilityBin, ...] = ()

    def prediction_set(self, probabilities: list[float], coverage: str) -> list[int]:
        """Classes by falling probability; never empty."""
        order = sorted(range(len(probabilities)), key=lambda class_id: -probabilities[class_id])
        threshold = self.thresholds[coverage]
        return order[:1] + [class_id for class_id in order[1:] if probabilities[class_id] >= threshold]

    def reliability_at(self, probability: float) -> ReliabilityBin | None:
        """The test tiles with a confidence like this one; None if there are none."""
        bins = (item for item in self.reliability if item.tiles and item.low <= probability)
        return next((item for item in bins if probability < item.high or item.high == 1), None)

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
    settings = {
        "schema": SCHEMA,
        "weights_digest": weights_digest,
        "temperature": confidence.temperature,
        "thresholds": dict(confidence.thresholds),
        "ood_threshold": confidence.ood_threshold,
        "calibrated_on": confidence.calibrated_on,
        "tumour_threshold": confidence.tumour_threshold,
        "reliability": [asdict(item) for item in confidence.reliability],
    }
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
        reliability = tuple(ReliabilityBin(**item) for item in settings.pop("reliability", ()))
        confidence = Confidence(**settings, **tensors, reliability=reliability)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ConfidenceError(f"{path.name} does not fit its schema: {error!r}") from error
    if schema != SCHEMA:
        raise ConfidenceError(f"{path.name} has schema {schema}, expected {SCHEMA}")
    if digest != weights_digest:
        raise ConfidenceError(f"{path.name} belongs to weights {digest}, not {weights_digest}")
    if not confidence.temperature > 0:
        raise ConfidenceError(f"{path.name} has temperature {confidence.temperature}")
    return confidence
