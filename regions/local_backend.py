"""The model of an archive in this process, by the engine that the machine selects."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from handler.api.verdict import verdict_of
from handler.archive import open_engine, unpack
from handler.classes import NUM_CLASSES
from handler.classifier import Classifier
from handler.model.engine import Forward
from handler.model.prediction import Prediction
from regions.answers import STATES, Answers
from regions.errors import RegionError
from regions.source import Pixels

BATCH = 32
COVERAGE = "0.9"


class LocalBackend:
    """Classifies with a classifier in this process."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    @classmethod
    def of_archive(cls, archive: Path) -> "LocalBackend":
        """The model of an archive, by the fastest engine of this machine or the one in PATHMNIST_ENGINE.

        Raises `RegionError` `archive_missing`, and what `load_model` raises.
        """
        if not archive.is_file():
            raise RegionError("archive_missing", f"{archive} does not exist; `make export` builds it.")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with TemporaryDirectory() as folder:
            engine = open_engine(Path(folder), unpack(archive, Path(folder)), device, archive.parent)
        return cls(Classifier(engine))

    def identity(self) -> dict[str, Any]:
        return {"backend": "local", **self._classifier.engine.identity()}

    def classify(self, tiles: Pixels) -> Answers:
        return Answers.join([self._batch(tiles[start : start + BATCH]) for start in range(0, len(tiles), BATCH)])

    def _batch(self, tiles: Pixels) -> Answers:
        forward = self._classifier.engine.forward(list(tiles))
        predictions = self._classifier.predictions(forward)
        fits = self._classifier.fits(list(tiles), predictions)
        rules = self._classifier.model.confidence
        states = [STATES.index(verdict_of(prediction, rules).state) for prediction in predictions]
        return Answers(
            np.stack([prediction.logits for prediction in predictions]),
            np.stack([prediction.probabilities for prediction in predictions]),
            np.stack([_members(prediction) for prediction in predictions]),
            np.array([np.nan if item.ood_score is None else item.ood_score for item in predictions]),
            np.array([item.in_distribution is not False for item in predictions]),
            np.array(states, np.int8),
            np.array([fit.verdict or "" for fit in fits]),
            np.array([",".join(fit.reasons) for fit in fits]),
            _class_activation_maps(forward, self._classifier.model.network.fc.weight),
        )


def _members(prediction: Prediction) -> NDArray[np.bool_]:
    members = np.zeros(NUM_CLASSES, bool)
    if prediction.in_distribution is not False and prediction.prediction_sets:
        members[list(prediction.prediction_sets[COVERAGE])] = True
    return members


def _class_activation_maps(forward: Forward, weight: torch.Tensor) -> NDArray[np.float32]:
    """The maps of `handler.explain.cam.gradcam` for all classes in one product (Zhou et al., arXiv 1512.04150)."""
    features = forward.features.float()
    with torch.no_grad():
        maps = torch.einsum("ck,nkhw->nchw", weight, features) / (features.shape[2] * features.shape[3])
    return maps.cpu().numpy()
