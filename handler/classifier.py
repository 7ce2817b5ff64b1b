"""The project's core in Python: images in, predictions and explanations out, as arrays and values.

JSON, pictures and HTTP are the concern of handler/api.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handler.explain.batching import MAX_BATCH, chunks
from handler.explain.cache import AttributionCache
from handler.explain.explainer import Explainer, Explanation, Job
from handler.explain.registry import DEFAULT_METHOD, METHODS
from handler.model.checkpoint import Model, load_model
from handler.model.engine import Engine, Forward, Image
from handler.model.fit import Fit, fit_of, measure, reduced
from handler.model.network import embedding
from handler.model.prediction import Prediction, prediction_of
from handler.model.preprocess import canonical_tile

# One class for all images, one for each, or None for each image's predicted class.
Target = int | Sequence[int] | None


class Classifier:
    """Classifies and explains images with one model."""

    def __init__(self, engine: Engine, cache: AttributionCache | None = None) -> None:
        """Use an engine, and a cache of explanations, if any."""
        self.engine = engine
        self._explainer = Explainer(engine.model, cache)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "Classifier":
        """A checkpoint folder or an unpacked archive, run by PyTorch. Raises what `load_model` raises."""
        return cls(Engine(load_model(folder, device), torch.device(device)))

    @property
    def model(self) -> Model:
        """The model, with its identity and preprocessing."""
        return self.engine.model

    def predict(self, images: Sequence[Image]) -> list[Prediction]:
        """Classify uint8 RGB images `[H, W, 3]` of any sizes. Raises `ArithmeticError` if a logit is not finite."""
        return [item for batch in _batches(images) for item in self.predictions(self.engine.forward(batch))]

    def explain(
        self,
        images: Sequence[Image],
        method: str = DEFAULT_METHOD,
        target: Target = None,
        contrast: int | None = None,
        **parameters: Any,
    ) -> list[Explanation]:
        """Explain uint8 RGB images `[H, W, 3]` of any sizes by a method of `handler.explain.registry`.

        The explained score is the logit of class `target` (0 to 8), minus that of class `contrast`, if any.
        `parameters` are the method's; those not given have their defaults.

        Raises `KeyError` if there is no such method, `ValueError` for a wrong parameter or number of targets,
        `ArithmeticError` if a map is not finite, and what the method raises.
        """
        forwards = [forward for batch in _batches(images) for forward in self.engine.forward(batch).split()]
        return self._explain(forwards, images, method, target, contrast, parameters)

    def explain_inputs(
        self, inputs: Tensor, method: str = DEFAULT_METHOD, target: Target = None, **parameters: Any
    ) -> list[Explanation]:
        """Like `explain`, for inputs of the network `[N, 3, I, I]`, in its units and number type."""
        forwards = [forward for batch in inputs.split(MAX_BATCH) for forward in self.engine.run(batch).split()]
        return self._explain(forwards, [None] * len(inputs), method, target, None, parameters)

    def predictions(self, forward: Forward) -> list[Prediction]:
        """The predictions of one pass of the network. Raises `ArithmeticError` if a logit is not finite."""
        confidence = self.model.confidence
        logits = forward.logits.cpu().numpy()
        if confidence is None:
            return [prediction_of(row, None, None) for row in logits]
        ood_scores = confidence.ood_scores(embedding(forward.features)).tolist()
        return [prediction_of(row, score, confidence) for row, score in zip(logits, ood_scores, strict=True)]

    def fits(self, images: Sequence[Image], predictions: Sequence[Prediction]) -> list[Fit]:
        """Whether each image is fit to be judged, with its prediction."""
        size = self.model.preprocessing.canonical_size
        limits = self.model.confidence.fit if self.model.confidence else None
        qualities = measure(np.stack([reduced(image, size) for image in images]))
        return [fit_of(*pair, limits) for pair in zip(qualities, predictions, strict=True)]

    def canonical_tile(self, image: Image) -> Image:
        """What the network sees of an image: uint8 `[S, S, 3]` with S the size that it was trained on."""
        tile = canonical_tile(torch.from_numpy(image), self.model.preprocessing)
        return (tile * 255).round().to(torch.uint8).movedim(0, -1).numpy()

    def run(self, jobs: Sequence[Job]) -> None:
        """Compute explanations of many images by many methods together. A job that fails does not affect the others."""
        self._explainer.run(jobs)

    def _explain(
        self,
        forwards: Sequence[Forward],
        images: Sequence[Image | None],
        method: str,
        target: Target,
        contrast: int | None,
        parameters: Mapping[str, Any],
    ) -> list[Explanation]:
        complete = METHODS[method].complete(parameters)
        targets = [target] * len(forwards) if target is None or isinstance(target, int) else target
        jobs = [
            Job(
                forward,
                METHODS[method],
                complete,
                int(forward.logits.argmax()) if class_id is None else class_id,
                contrast,
                image=image,
            )
            for forward, image, class_id in zip(forwards, images, targets, strict=True)
        ]
        self.run(jobs)
        return [job.result() for job in jobs]


def _batches(images: Sequence[Image]) -> list[Sequence[Image]]:
    return [images[part.start : part.stop] for part in chunks(len(images))]
