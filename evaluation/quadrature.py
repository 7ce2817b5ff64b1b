"""How exact Integrated Gradients are, rule against rule: `python -m evaluation.quadrature --data FILE.npz`.

For tiles of the test split the map of each rule is compared with that of 512 Gauss-Legendre points: the Euclidean norm
of the difference over the norm of that reference. Prints and writes JSON. References are kept in a folder, because each
takes 512 gradients, so an interrupted run can be continued.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from handler.classes import CODES
from handler.classifier import Classifier
from handler.explain.baselines import baseline_input
from handler.explain.batching import chunks
from handler.explain.registry import METHODS
from handler.explain.secant import exact_stem
from handler.model.checkpoint import Model
from handler.model.network import classify
from handler.model.preprocess import preprocess
from handler.model.resnet import ResNet
from training.checkpoint import SHIPPED, write_json
from training.data import Split, add_data_argument, load_or_exit

REFERENCE_STEPS = 512
SPREAD = 200
FIXED, ADAPTIVE = "gauss-legendre-50", "adaptive"
# Name of a rule and its parameters.
RULES: dict[str, dict[str, Any]] = {FIXED: {"n_steps": 50}, ADAPTIVE: {}}
TOLERANCE = float(METHODS["integrated_gradients"].parameters["tolerance"].default)
STATISTICS = {
    "error": ("median", "mean", "max"),
    "gradient_evaluations": ("mean", "max"),
    "completeness_residual": ("median", "max"),
}


@dataclass(frozen=True)
class Result:
    """One rule on one tile: its error, and the figures of its answer (see `integrated_gradients`)."""

    error: float
    gradient_evaluations: int
    completeness_residual: float
    map_error_estimate: float | None = None
    converged: bool | None = None


@dataclass(frozen=True)
class Row:
    """Each rule's result on one tile."""

    index: int
    label: str
    results: dict[str, Result]


class Measurement:
    """Compares maps of a classifier's predicted classes with references from a folder."""

    def __init__(self, classifier: Classifier, references: Path, steps: int = REFERENCE_STEPS) -> None:
        self._classifier = classifier
        self._references = references
        self._steps = steps
        references.mkdir(parents=True, exist_ok=True)

    def of_tile(self, split: Split, index: int) -> Row:
        """Every rule on one tile."""
        image = split.images[index]
        reference = self._reference(image, index)
        results = {name: self._result(image, reference, parameters) for name, parameters in RULES.items()}
        return Row(index, CODES[split.labels[index]], results)

    def _result(self, image: NDArray[np.uint8], reference: NDArray[np.float32], parameters: dict[str, Any]) -> Result:
        (explanation,) = self._classifier.explain([image], "integrated_gradients", **parameters)
        details = explanation.details
        return Result(
            float(np.linalg.norm(explanation.attribution - reference) / np.linalg.norm(reference)),
            details["gradient_evaluations"],
            details["completeness_residual"],
            details.get("map_error_estimate"),
            details["converged"],
        )

    def _reference(self, image: NDArray[np.uint8], index: int) -> NDArray[np.float32]:
        model = self._classifier.model
        path = self._references / f"{model.digest[:12]}-{self._steps}-{index}.npy"
        if not path.is_file():
            inputs = preprocess([torch.from_numpy(image)], model.preprocessing)
            target = self._classifier.predict([image])[0].tissue.class_id
            np.save(path, reference_map(model, inputs, target, self._steps).numpy())
        reference: NDArray[np.float32] = np.load(path)
        return reference


def reference_map(model: Model, inputs: Tensor, target: int, n_steps: int) -> Tensor:
    """Integrated Gradients of `inputs` `[1, 3, I, I]` from black by `n_steps` Gauss-Legendre points, `[3, I, I]`.

    The stem up to its max-pool is linear, so it runs once in each direction for all points together, and in float64,
    because rounding would decide which of near-equal maxima receives a gradient.
    """
    network = model.network
    baseline = baseline_input("black", inputs, model.preprocessing)
    abscissae, weights = np.polynomial.legendre.leggauss(n_steps)
    start, end = exact_stem(network, baseline), exact_stem(network, inputs)
    mean = torch.zeros_like(start)
    for chunk in chunks(n_steps, 16):
        part = slice(chunk.start, chunk.stop)
        nodes = start.new_tensor((abscissae[part] + 1) / 2)[:, None, None, None]
        maps = torch.lerp(start, end, nodes).requires_grad_()
        (gradients,) = torch.autograd.grad(_after_stem(network, maps)[:, target].sum(), maps)
        mean += torch.einsum("n,nchw->chw", start.new_tensor(weights[part] / 2), gradients)
    leaf = inputs.clone().requires_grad_()
    stem = network.bn1(network.conv1(leaf))
    (gradient,) = torch.autograd.grad((stem * mean.to(stem.dtype)).sum(), leaf)
    return ((inputs - baseline) * gradient)[0].contiguous()


def _after_stem(network: ResNet, maps: Tensor) -> Tensor:
    """The logits for the input of the stem's first ReLU."""
    features = network.maxpool(maps.relu()).to(network.conv1.weight.dtype, memory_format=torch.channels_last)
    for block in network.blocks():
        features = block(features)
    return classify(network, features)


def choose(count: int, available: int) -> list[int]:
    """Up to 200 indices spread evenly over a split, in a fixed random order: a smaller choice begins a larger one."""
    spread = np.linspace(0, available - 1, min(SPREAD, available)).round().astype(int)
    chosen: list[int] = np.random.default_rng(0).permutation(spread)[:count].tolist()
    return chosen


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Statistics of every rule over tiles, and the adaptive rule's error relative to the fixed one's, in the median."""
    results = {name: [row.results[name] for row in rows] for name in RULES}
    ratios = [one.error / other.error for one, other in zip(results[ADAPTIVE], results[FIXED], strict=True)]
    return {
        "tiles": len(rows),
        FIXED: _statistics(results[FIXED]),
        ADAPTIVE: _statistics(results[ADAPTIVE]) | _convergence(results[ADAPTIVE]),
        "error_ratio": _round(np.median(ratios)),
    }


def _statistics(results: Sequence[Result]) -> dict[str, Any]:
    return {
        name: {kind: _round(getattr(np, kind)([getattr(result, name) for result in results])) for kind in kinds}
        for name, kinds in STATISTICS.items()
    }


def _convergence(results: Sequence[Result]) -> dict[str, Any]:
    """How reliable `converged` is. `false_converged` counts maps that claim the tolerance and are not within it."""
    converged = [result for result in results if result.converged]
    ratios = [result.map_error_estimate / result.error for result in results if result.map_error_estimate is not None]
    return {
        "tolerance": TOLERANCE,
        "converged": len(converged),
        "false_converged": sum(result.error > TOLERANCE for result in converged),
        "estimate_over_error": [_round(value) for value in np.percentile(ratios, (0, 5, 50, 95))],
    }


def _round(value: Any) -> float:
    return float(f"{float(value):.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--tiles", type=int, default=200)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    parser.add_argument("--references", type=Path, default=Path("runs/references"), help="folder to keep them in")
    parser.add_argument("--output", type=Path, help="JSON file for the summary and every tile's figures")
    arguments = parser.parse_args()
    split = load_or_exit(arguments.data).test
    measurement = Measurement(Classifier.load(arguments.checkpoint), arguments.references)
    rows = [measurement.of_tile(split, index) for index in tqdm(choose(arguments.tiles, len(split)))]
    summary = summarise(rows)
    print(json.dumps(summary, indent=2))
    if arguments.output:
        write_json(arguments.output, {"summary": summary, "tiles": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
