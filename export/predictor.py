"""The two ONNX files as a classifier that explains: predictions and maps as the server gives them, without PyTorch.

It needs ONNX Runtime, NumPy and Pillow, and so does all that it imports.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from handler.explain.display import Display
from handler.model.fit import Fit, fit_of, measure, reduced
from handler.model.prediction import DecisionRules, Prediction, prediction_of

CLASSIFYING, EXPLAINING = "pathmnist.onnx", "pathmnist_explain.onnx"
# Methods that the files compute, with their display as in handler/explain/registry.py. The first three are one map.
CAM: dict[str, Display] = {"gradcam": "positive", "hirescam": "positive", "xgradcam": "positive"}
GRADIENT: dict[str, Display] = {"saliency": "magnitude", "integrated_gradients": "magnitude"}
METHODS = CAM | GRADIENT
BASELINES = {"black": 0, "white": 255}
# Smaller changes of the score count as this one, as in handler/explain/integrated_gradients.py.
SMALLEST_CHANGE = 1e-3

Image = NDArray[np.uint8]
Map = NDArray[np.float32]


class ModelFileError(ValueError):
    """A file of the model is missing, or the two files hold different weights."""


@dataclass(frozen=True)
class Score:
    """What a map explains: the logit of class `target`, minus that of class `contrast`, if any."""

    target: int
    contrast: int | None = None

    @property
    def classes(self) -> list[int]:
        return [self.target] if self.contrast is None else [self.target, self.contrast]

    def of(self, values: NDArray[Any]) -> Any:
        """The score, or its map, from the values of each of `classes`: gradients of a difference are differences."""
        return values[0] if self.contrast is None else values[0] - values[1]


@dataclass(frozen=True)
class IntegrationPath:
    """Integrated Gradients: the number of Gauss-Legendre points, 1 to 256, and the colour at the start of the path."""

    n_steps: int = 32
    baseline: str = "black"


@dataclass(frozen=True)
class Classified:
    """The prediction for one image, whether the image is fit to be judged, and the class activation maps of its nine
    logits, `[9, 7, 7]` in logits."""

    prediction: Prediction
    fit: Fit
    cam: Map


@dataclass(frozen=True)
class Explanation:
    """A signed map `[h, w]` or `[3, h, w]` in `unit`; `details` are the method's own figures."""

    method: str
    score: Score
    attribution: Map
    unit: str
    details: dict[str, Any]


class Predictor:
    """Classifies and explains images with the ONNX files of a folder."""

    def __init__(self, folder: Path) -> None:
        """Open the classifying file; the other one is opened by the first explanation that needs it.

        Raises `ModelFileError`.
        """
        self._folder = folder
        # The highest level would copy the weights into other layouts.
        self._session = _open(folder / CLASSIFYING, GraphOptimizationLevel.ORT_ENABLE_BASIC)
        self._metadata = self._session.get_modelmeta().custom_metadata_map
        rules = json.loads(self._metadata["rules"])
        self.rules = DecisionRules.from_json(rules) if rules else None
        self._preprocessing: dict[str, Any] = json.loads(self._metadata["preprocessing"])

    @property
    def input_size(self) -> int:
        """The side of the network's input."""
        return int(self._preprocessing["input_size"])

    def identity(self) -> dict[str, Any]:
        """The `model` block of an answer."""
        return {
            "name": self._metadata["name"],
            "version": self._metadata["version"],
            "digest": self._metadata["weights_sha256"],
            "training_data": self._metadata["training_data"],
            "engine": "onnxruntime",
        }

    def classify(self, image: Image) -> Classified:
        """Classify an RGB image `[H, W, 3]` of any size. Raises `ArithmeticError` if a logit is not finite."""
        names = ["logits", "cam"] + (["ood_score"] if self.rules else [])
        logits, cam, *ood_score = self._session.run(names, {"image": image[None]})
        distance = float(ood_score[0][0]) if self.rules else None
        prediction = prediction_of(logits[0], distance, self.rules)
        (quality,) = measure(reduced(image, self._preprocessing["canonical_size"])[None])
        return Classified(prediction, fit_of(quality, prediction, self.rules.fit if self.rules else None), cam[0])

    def explain(
        self, image: Image, classified: Classified, method: str, score: Score, path: IntegrationPath
    ) -> Explanation:
        """Explain a score of an image that was classified, by one of `METHODS`."""
        if method in CAM:
            details = {"layer": "layer4"}
            return Explanation(method, score, score.of(classified.cam[score.classes]), "logit", details)
        if method == "saliency":
            (maps,) = self._run_explaining(["saliency"], image, score, IntegrationPath(n_steps=0))
            return Explanation(method, score, score.of(maps), "logit per input unit", {"gradient_evaluations": 1})
        return self._integrate(image, classified, score, path)

    def _integrate(self, image: Image, classified: Classified, score: Score, path: IntegrationPath) -> Explanation:
        (maps,) = self._run_explaining(["integrated_gradients"], image, score, path)
        values = score.of(maps)
        # An image of one colour is the same tile at every size.
        start = self.classify(np.full((28, 28, 3), BASELINES[path.baseline], dtype=np.uint8))
        change = score.of(classified.prediction.logits[score.classes] - start.prediction.logits[score.classes])
        gap = abs(float(values.sum(dtype=np.float64)) - change)
        details = {
            "rule": "gauss-legendre",
            "baseline": path.baseline,
            "n_steps": path.n_steps,
            "gradient_evaluations": path.n_steps,
            "completeness_residual": gap / max(abs(change), SMALLEST_CHANGE),
            "converged": None,
        }
        return Explanation("integrated_gradients", score, values, "logit", details)

    def _run_explaining(self, outputs: list[str], image: Image, score: Score, path: IntegrationPath) -> list[Map]:
        """The outputs for each class of the score, one after another to save memory."""
        colour = np.full(3, BASELINES[path.baseline] / 255, dtype=np.float32)
        fixed = {"image": image[None], "n_steps": np.array(path.n_steps), "baseline": colour}
        rows = [self._explaining.run(outputs, {**fixed, "target": np.array([class_id])}) for class_id in score.classes]
        return [np.concatenate(values) for values in zip(*rows, strict=True)]

    @cached_property
    def _explaining(self) -> InferenceSession:
        # Optimisation would fold copies of all weights, turned for the backward pass, and exceed 400 MB.
        session = _open(self._folder / EXPLAINING, GraphOptimizationLevel.ORT_DISABLE_ALL)
        if session.get_modelmeta().custom_metadata_map["weights_sha256"] != self._metadata["weights_sha256"]:
            raise ModelFileError(f"{CLASSIFYING} and {EXPLAINING} in {self._folder} hold different weights.")
        return session


def _open(path: Path, level: GraphOptimizationLevel) -> InferenceSession:
    if not path.is_file():
        raise ModelFileError(f"There is no {path}: `make export` writes it.")
    options = SessionOptions()
    options.graph_optimization_level = level
    # An arena keeps memory for inputs to come; tiles come one by one.
    options.enable_cpu_mem_arena = False
    return InferenceSession(path, options, providers=["CPUExecutionProvider"])
