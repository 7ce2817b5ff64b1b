"""How exact Integrated Gradients are, rule against rule: `python -m evaluation.quadrature --data FILE.npz`.

For tiles of the test split the map of each rule is compared with that of 512 Gauss-Legendre points, as the Euclidean
norm of the difference over the norm of that reference. Prints and writes JSON. A reference takes 512 gradients, so
they are kept in a folder, and an interrupted run goes on where it was.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models import ResNet
from tqdm import tqdm

from handler.classes import CODES
from handler.explain.baselines import baseline_input
from handler.explain.batching import Task, chunks, run
from handler.explain.evaluator import Evaluator
from handler.explain.integrated_gradients import ADAPTIVE, integrated_gradients
from handler.explain.registry import METHODS
from handler.explain.secant import exact_stem
from handler.explain.types import Attribution, Question
from handler.model.checkpoint import Model, load_model
from handler.model.engine import Engine
from handler.model.network import classify
from training.checkpoint import SHIPPED, write_json
from training.data import Split, add_data_argument, load

REFERENCE_STEPS = 512
SPREAD = 200
# Name of a rule and the parameters that differ from the default, the adaptive rule.
RULES: dict[str, dict[str, Any]] = {
    "gauss-legendre-50": {"n_steps": 50},
    "adaptive": {},
}


class Measurement:
    """Maps of one model's predicted classes, with references from a folder."""

    def __init__(self, model: Model, references: Path, steps: int = REFERENCE_STEPS) -> None:
        self._model = model
        self._engine = Engine(model, torch.device("cpu"))
        self._evaluator = Evaluator(model.network)
        self._references = references
        self._steps = steps
        references.mkdir(parents=True, exist_ok=True)

    def of_tile(self, split: Split, index: int) -> dict[str, Any]:
        """Each rule's error, cost and own statements on one tile."""
        question = self._question(split.images[index])
        reference = self._reference(question, index)
        row: dict[str, Any] = {"index": index, "label": CODES[split.labels[index]]}
        for name, changes in RULES.items():
            attribution = self._attribute(question, changes)
            error = float((attribution.values - reference).norm() / reference.norm())
            kept = ("gradient_evaluations", "completeness_residual", "map_error_estimate", "converged")
            row[name] = {"error": error, **{key: attribution.facts.get(key) for key in kept}}
        return row

    def _question(self, image: NDArray[np.uint8]) -> Question:
        forward = self._engine.forward([image])
        coefficients = torch.nn.functional.one_hot(forward.logits.argmax(dim=1), 9).float()
        network, preprocessing = self._model.network, self._model.preprocessing
        return Question(network, preprocessing, forward.inputs, forward.features, forward.logits, coefficients)

    def _reference(self, question: Question, index: int) -> Tensor:
        path = self._references / f"{self._model.digest[:12]}-{self._steps}-{index}.npy"
        if not path.is_file():
            np.save(path, reference_map(question, self._steps).numpy())
        return torch.from_numpy(np.load(path))

    def _attribute(self, question: Question, changes: dict[str, Any]) -> Attribution:
        defaults = {name: spec.default for name, spec in METHODS["integrated_gradients"].parameters.items()}
        (outcome,) = run([Task(integrated_gradients(question, {**defaults, **changes}))], self._evaluator)
        assert isinstance(outcome, Attribution)
        return outcome


def reference_map(question: Question, n_steps: int) -> Tensor:
    """Integrated Gradients from black by `n_steps` Gauss-Legendre points, `[3, I, I]`.

    The stem up to its max-pool is linear, so it is passed once in each direction for all points together, and in
    float64, since rounding would decide which of near-equal maxima receives a gradient.
    """
    network, target = question.network, int(question.coefficients.argmax())
    baseline = baseline_input(question, "black")
    abscissae, weights = np.polynomial.legendre.leggauss(n_steps)
    start, end = exact_stem(network, baseline), exact_stem(network, question.inputs)
    mean = torch.zeros_like(start)
    for chunk in chunks(n_steps, 16):
        part = slice(chunk.start, chunk.stop)
        nodes = start.new_tensor((abscissae[part] + 1) / 2)[:, None, None, None]
        maps = torch.lerp(start, end, nodes).requires_grad_()
        (slopes,) = torch.autograd.grad(_after_stem(network, maps)[:, target].sum(), maps)
        mean += torch.einsum("n,nchw->chw", start.new_tensor(weights[part] / 2), slopes)
    inputs = question.inputs.clone().requires_grad_()
    stem = network.bn1(network.conv1(inputs))
    (slope,) = torch.autograd.grad((stem * mean.to(stem.dtype)).sum(), inputs)
    return ((question.inputs - baseline) * slope)[0].contiguous()


def _after_stem(network: ResNet, maps: Tensor) -> Tensor:
    """The logits of what goes into the stem's first ReLU."""
    features = network.maxpool(maps.relu()).to(network.conv1.weight.dtype, memory_format=torch.channels_last)
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        features = layer(features)
    return classify(network, features)


def choose(count: int, available: int) -> list[int]:
    """Up to 200 indices spread evenly over a split, in a fixed random order: the first of many are those of few."""
    spread = np.linspace(0, available - 1, min(SPREAD, available)).round().astype(int)
    chosen: list[int] = np.random.default_rng(0).permutation(spread)[:count].tolist()
    return chosen


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians and extremes over tiles. `false_converged` counts maps said to be within the tolerance that are not."""
    summary: dict[str, Any] = {"tiles": len(rows)}
    for name, changes in RULES.items():
        results = [row[name] for row in rows]
        errors = np.array([result["error"] for result in results])
        evaluations = np.array([result["gradient_evaluations"] for result in results])
        residuals = np.array([result["completeness_residual"] for result in results])
        summary[name] = {
            "error": {"median": _round(np.median(errors)), "mean": _round(errors.mean()), "max": _round(errors.max())},
            "gradient_evaluations": {"mean": _round(evaluations.mean()), "max": int(evaluations.max())},
            "completeness_residual": {"median": _round(np.median(residuals)), "max": _round(residuals.max())},
        }
        if changes.get("n_steps", ADAPTIVE) == ADAPTIVE:
            tolerance = changes.get("tolerance", METHODS["integrated_gradients"].parameters["tolerance"].default)
            converged = np.array([result["converged"] for result in results])
            estimates = np.array([result["map_error_estimate"] for result in results])
            summary[name] |= {
                "tolerance": tolerance,
                "converged": int(converged.sum()),
                "false_converged": int((converged & (errors > tolerance)).sum()),
                "estimate_over_error": [_round(value) for value in np.percentile(estimates / errors, (0, 5, 50, 95))],
            }
    baseline, ours = ([row[name]["error"] for row in rows] for name in ("gauss-legendre-50", "adaptive"))
    summary["error_ratio"] = _round(np.median(np.array(ours) / np.array(baseline)))
    return summary


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
    split = load(arguments.data).test
    measurement = Measurement(load_model(arguments.checkpoint), arguments.references)
    rows = [measurement.of_tile(split, index) for index in tqdm(choose(arguments.tiles, len(split)))]
    summary = summarise(rows)
    print(json.dumps(summary, indent=2))
    if arguments.output:
        write_json(arguments.output, {"summary": summary, "tiles": rows})


if __name__ == "__main__":
    main()
