"""How reliable the explanations are: `python -m evaluation.explanations --data FILE.npz --output FOLDER`.

Measures every method of the server with its default parameters, a random map and an edge detector on the same test
tiles: deletion and insertion, sensitivity to invisible changes, and dependence on the weights. Means come with 95 %
bootstrap intervals. Writes explanations.json, explanations.md and explanations.svg.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.metrics import sensitivity_max
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import bootstrap
from torch import Tensor
from tqdm import tqdm

from evaluation.faithfulness import (
    STAGES,
    area_under,
    cell_order,
    edge_map,
    randomise_from_the_top,
    rank_correlation,
    replacement_curve,
)
from evaluation.plots import save_figure
from evaluation.quadrature import choose
from handler.api.render import strength_of
from handler.classifier import Classifier
from handler.explain.baselines import baseline_input
from handler.explain.registry import METHODS
from handler.model.checkpoint import WEIGHTS, Model, load_model
from handler.model.engine import Engine
from handler.model.network import for_inference, load_network
from handler.model.preprocess import preprocess
from training.checkpoint import SHIPPED, write_json
from training.data import Split, add_data_argument, load_or_exit

# Three methods give the same map; one of them is enough.
EVALUATED = [name for name in METHODS if name not in ("hirescam", "xgradcam")]
CONTROLS = ("random map", "edge detector")
# Every map is judged by the same 49 squares of the tile. Removing scattered pixels would make a new texture, on which
# the network fails for every map.
GRID, STEPS = 7, 14
# Invisible noise: less than one grey level of a tile, in the network's units.
RADIUS, PERTURBATIONS = 0.015, 3
RESAMPLES = 2000
# Under random weights the adaptive rule would use all its evaluations. Ranks do not need an exact map.
ROUGH: dict[str, dict[str, Any]] = {"integrated_gradients": {"max_evaluations": 16}}
# Measure, and whether more of it is better.
MEASURES = {"deletion": False, "insertion": True, "sensitivity": False, "randomisation": False}


class Subject:
    """A tile, a network's classifier, and the class whose maps are measured: by default the predicted one."""

    def __init__(self, classifier: Classifier, image: NDArray[np.uint8], target: int | None = None) -> None:
        self._classifier = classifier
        self.image = image
        self.inputs = preprocess([torch.from_numpy(image)], classifier.model.preprocessing)
        self.target = classifier.predict([image])[0].tissue.class_id if target is None else target

    def probability(self, inputs: Tensor) -> Tensor:
        """Of the target, for inputs of the network."""
        return self._classifier.engine.run(inputs).logits.softmax(dim=1)[:, self.target]

    def strength(self, name: str, inputs: Tensor | None = None, **parameters: Any) -> Tensor:
        """The map as the server draws it before stretching, `[h, w]`, of the tile or of other inputs."""
        if name == "random map":
            return torch.from_numpy(np.random.default_rng(self.image.sum()).random((GRID, GRID))).float()
        if name == "edge detector":
            return edge_map(self.image if inputs is None else inputs[0].permute(1, 2, 0).numpy())
        inputs = self.inputs if inputs is None else inputs
        (explanation,) = self._classifier.explain_inputs(inputs, name, self.target, **parameters)
        return torch.from_numpy(strength_of(explanation.attribution, METHODS[name].display))

    def blurred(self) -> Tensor:
        """The tile without its structure, `[3, I, I]`."""
        return baseline_input("blur", self.inputs, self._classifier.model.preprocessing)[0]


def deletion_and_insertion(subject: Subject, strength: Tensor) -> dict[str, float]:
    """Areas under both curves. Deletion ends in the mean colour, insertion starts from the blurred tile."""
    order = cell_order(strength, GRID)
    blurred, tile = subject.blurred(), subject.inputs[0]
    grey = torch.zeros_like(tile)
    return {
        "deletion": area_under(replacement_curve(tile, grey, order, GRID, STEPS, subject.probability)),
        "insertion": area_under(replacement_curve(blurred, tile, order, GRID, STEPS, subject.probability)),
    }


def sensitivity(subject: Subject, name: str) -> float:
    """The largest relative change of the map under invisible noise (Yeh et al., arXiv 1901.09392), by Captum."""

    def explain(inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        # Captum calls this with gradients switched off.
        with torch.enable_grad():
            return (torch.stack([subject.strength(name, row[None]) for row in inputs[0]]),)

    torch.manual_seed(0)
    change = sensitivity_max(
        explain, (subject.inputs,), perturb_radius=RADIUS, n_perturb_samples=PERTURBATIONS, max_examples_per_batch=1
    )
    return float(change)


def randomised_classifiers(model: Model, weights: Path) -> list[Classifier]:
    """The model with random weights from the last layer down, by one stage more each."""
    classifiers = []
    for stage in range(len(STAGES)):
        network = load_network(weights)
        randomise_from_the_top(network, stage, seed=0)
        classifiers.append(classifier_of(replace(model, network=for_inference(network))))
    return classifiers


def classifier_of(model: Model) -> Classifier:
    return Classifier(Engine(model, torch.device("cpu")))


def randomisation(classifiers: list[Classifier], subject: Subject, name: str) -> list[float]:
    """Rank correlation of the map with those of randomised models."""
    original = subject.strength(name)
    changed = [Subject(classifier, subject.image, subject.target) for classifier in classifiers]
    return [rank_correlation(original, other.strength(name, **ROUGH.get(name, {}))) for other in changed]


def evaluate(model: Model, weights: Path, split: Split, tiles: int, randomised_tiles: int) -> dict[str, Any]:
    """All measures of all methods, tile by tile: name -> measure -> values."""
    names = (*EVALUATED, *CONTROLS)
    values: dict[str, dict[str, list[Any]]] = {name: {measure: [] for measure in MEASURES} for name in names}
    indices = choose(tiles, len(split))
    classifier, randomised = classifier_of(model), randomised_classifiers(model, weights)
    for position, index in enumerate(tqdm(indices)):
        subject = Subject(classifier, split.images[index])
        for name in names:
            for measure, value in deletion_and_insertion(subject, subject.strength(name)).items():
                values[name][measure].append(value)
            if position < randomised_tiles:
                values[name]["sensitivity"].append(sensitivity(subject, name))
                values[name]["randomisation"].append(randomisation(randomised, subject, name))
    return {"model": model.digest, "indices": indices, "values": values}


def summarise(result: dict[str, Any]) -> dict[str, Any]:
    """Means with intervals, and whether a method is better than the random map on the same tiles."""
    values = result["values"]
    methods: dict[str, Any] = {}
    for name, measures in values.items():
        methods[name] = {}
        for measure, more_is_better in MEASURES.items():
            tiles = per_tile(measures[measure])
            entry = {"mean": float(tiles.mean()), "interval": interval(tiles)}
            if measure in ("deletion", "insertion") and name not in CONTROLS:
                gains = {}
                for control in CONTROLS:
                    difference = tiles - per_tile(values[control][measure])
                    low, high = interval(difference if more_is_better else -difference)
                    gains[control] = {"interval": [low, high], "better": low > 0}
                entry["against"] = gains
            methods[name][measure] = entry
        stages = np.array(measures["randomisation"]).mean(axis=0)
        methods[name]["randomisation"]["by_stage"] = dict(zip(STAGES, stages.tolist(), strict=True))
    counts = {measure: len(values["gradcam"][measure]) for measure in MEASURES}
    return {"model": result["model"], "tiles": counts, "methods": methods}


def per_tile(values: list[Any]) -> NDArray[np.float64]:
    """One number per tile; for randomisation, the mean magnitude of the correlation over its stages."""
    array = np.array(values, dtype=np.float64)
    return np.abs(array).mean(axis=1) if array.ndim == 2 else array


def interval(values: NDArray[np.float64]) -> list[float]:
    """The 95 % percentile bootstrap interval of the mean."""
    if np.ptp(values) == 0:
        return [float(values[0])] * 2
    result = bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0))
    return [float(result.confidence_interval.low), float(result.confidence_interval.high)]


def markdown(summary: dict[str, Any]) -> str:
    """The summary as a table."""
    tiles = summary["tiles"]
    lines = [
        f"Means over {tiles['deletion']} test tiles ({tiles['sensitivity']} for the last two columns) with 95 %",
        "bootstrap intervals. Bold: better than the random map on the same tiles beyond chance.",
        "",
        "| map | deletion (less is better) | insertion (more) | sensitivity (less) | randomisation (less) |",
        "|---|---|---|---|---|",
    ]
    for name, measures in summary["methods"].items():
        cells = []
        for measure in MEASURES:
            entry = measures[measure]
            low, high = entry["interval"]
            text = f"{entry['mean']:.3f} ({low:.3f} to {high:.3f})"
            better = entry.get("against", {}).get("random map", {}).get("better", False)
            cells.append(f"**{text}**" if better else text)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(summary: dict[str, Any], path: Path) -> None:
    """One panel per measure, a point with its interval per method; controls as lines."""
    names = [name for name in summary["methods"] if name not in CONTROLS]
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    axes = figure.subplots(1, len(MEASURES), sharey=True)
    for axis, (measure, more) in zip(axes, MEASURES.items(), strict=True):
        for row, name in enumerate(names):
            entry = summary["methods"][name][measure]
            low, high = entry["interval"]
            axis.plot([low, high], [row, row], color="tab:blue")
            axis.plot(entry["mean"], row, "o", color="tab:blue", markersize=4)
        for control, style in zip(CONTROLS, ("--", ":"), strict=True):
            mean = summary["methods"][control][measure]["mean"]
            axis.axvline(mean, color="grey", linestyle=style, label=control)
        axis.set_title(f"{measure} ({'more' if more else 'less'} is better)", fontsize=9)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.tick_params(axis="x", labelsize=8)
        axis.invert_yaxis() if axis is axes[0] else None
    axes[0].legend(fontsize=7)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--tiles", type=int, default=60, help="for deletion and insertion")
    parser.add_argument("--randomised-tiles", type=int, default=12, help="of them, for sensitivity and randomisation")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    parser.add_argument("--output", type=Path, required=True, help="folder for the report")
    arguments = parser.parse_args()
    model = load_model(arguments.checkpoint)
    split = load_or_exit(arguments.data).test
    weights = arguments.checkpoint / WEIGHTS
    summary = summarise(evaluate(model, weights, split, arguments.tiles, arguments.randomised_tiles))
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output / "explanations.json", summary)
    table = markdown(summary)
    (arguments.output / "explanations.md").write_text(table)
    plot(summary, arguments.output / "explanations.svg")
    print(json.dumps(summary["tiles"]))
    print(table)


if __name__ == "__main__":
    main()
