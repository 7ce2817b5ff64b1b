"""What re-encoding, blur, colour and stain do to the answers: `python -m evaluation.robustness --data FILE.npz`.

Every change is made to the tile's own pixels, as another scanner, site or file format would make it, and the model then
answers as the server does. Reports accuracy with its bootstrap interval, calibration error, and the share still called
in distribution. With `--output FOLDER` writes robustness.json, robustness.md and robustness.svg.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from sklearn.metrics import balanced_accuracy_score
from tqdm import tqdm

from evaluation.calibrate import run_network
from evaluation.plots import save_figure
from evaluation.reliability import apply_temperature, expected_calibration_error
from evaluation.scores import with_interval
from handler.model.checkpoint import Model, load_model
from training.augment import STAINS
from training.checkpoint import SHIPPED, write_json
from training.data import SPLITS, Split, add_data_argument, load_or_exit

Change = Callable[[Image.Image], Image.Image]
RESAMPLES = 1000


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def blur(image: Image.Image, sigma: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma))


def brightness(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def contrast(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def saturation(image: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(factor)


def hue(image: Image.Image, turn: float) -> Image.Image:
    """Turn the hue by a share of the circle."""
    values = np.asarray(image.convert("HSV")).copy()
    values[..., 0] += np.uint8(round(turn * 256) % 256)
    return Image.fromarray(values, "HSV").convert("RGB")


def stain(image: Image.Image, factors: tuple[float, float]) -> Image.Image:
    """Multiply the amounts of haematoxylin and eosin (Ruifrok and Johnston, PMID 11531144)."""
    vectors = STAINS.double().numpy()
    density = -np.log(np.clip(np.asarray(image) / 255, 1e-3, 1))
    amounts = density @ np.linalg.inv(vectors) * np.array([*factors, 1.0])
    return Image.fromarray(np.rint(255 * np.clip(np.exp(-amounts @ vectors), 0, 1)).astype(np.uint8))


def enlarge(image: Image.Image, size: int) -> Image.Image:
    return image.resize((size, size), Image.Resampling.BICUBIC)


CHANGES: dict[str, dict[str, Change]] = {
    "JPEG quality": {str(q): partial(jpeg, quality=q) for q in (80, 60, 40, 20)},
    "blur, pixels": {f"{s:g}": partial(blur, sigma=s) for s in (0.5, 1.0, 1.5)},
    "brightness": {f"{f:g}": partial(brightness, factor=f) for f in (0.7, 0.85, 1.15, 1.3)},
    "contrast": {f"{f:g}": partial(contrast, factor=f) for f in (0.6, 0.8, 1.25, 1.5)},
    "saturation": {f"{f:g}": partial(saturation, factor=f) for f in (0.5, 0.75, 1.5, 2.0)},
    "hue, turns": {f"{t:g}": partial(hue, turn=t) for t in (-0.06, -0.03, 0.03, 0.06)},
    "stain H, E": {
        f"{h:g}, {e:g}": partial(stain, factors=(h, e)) for h, e in ((0.7, 1.0), (1.4, 1.0), (1.0, 0.7), (1.0, 1.4))
    },
    "size": {str(size): partial(enlarge, size=size) for size in (64, 224)},
}


def change_all(images: NDArray[np.uint8], change: Change) -> NDArray[np.uint8]:
    """The change made to every image, through Pillow."""
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in images])


def measure(model: Model, split: Split, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Accuracy with its interval, balanced accuracy, calibration error and share in distribution."""
    outputs = run_network(model, images, split.labels)
    temperature = model.confidence.temperature if model.confidence else 1.0
    probabilities = apply_temperature(outputs.logits, temperature)
    predicted = probabilities.argmax(axis=1)
    right = predicted == split.labels
    rows = np.random.default_rng(0).integers(0, len(right), (RESAMPLES, len(right)))
    inside = None
    if model.confidence:
        distances = model.confidence.ood_scores(torch.from_numpy(outputs.embeddings).float())
        inside = round(float((distances <= model.confidence.ood_threshold).float().mean()), 4)
    return {
        "accuracy": round(float(right.mean()), 4),
        "interval": [round(float(value), 4) for value in np.percentile(right[rows].mean(axis=1), (2.5, 97.5))],
        "balanced_accuracy": round(float(balanced_accuracy_score(split.labels, predicted)), 4),
        "calibration_error": round(expected_calibration_error(probabilities, split.labels), 4),
        "in_distribution": inside,
    }


def report(model: Model, split: Split, changes: dict[str, dict[str, Change]] = CHANGES) -> dict[str, Any]:
    """The unchanged split first, then every change at every strength."""
    found: dict[str, Any] = {"unchanged": {"": measure(model, split, split.images)}}
    for kind, strengths in tqdm(changes.items()):
        found[kind] = {
            strength: measure(model, split, change_all(split.images, change)) for strength, change in strengths.items()
        }
    return {"model": model.digest, "images": len(split), "changes": found}


def markdown(result: dict[str, Any]) -> str:
    """The report as a table."""
    lines = [
        f"{result['images']} tiles, accuracy with 95 % bootstrap intervals.",
        "",
        "| change | strength | accuracy | balanced | calibration error | in distribution |",
        "|---|---|---|---|---|---|",
    ]
    for kind, strengths in result["changes"].items():
        for strength, row in strengths.items():
            inside = "" if row["in_distribution"] is None else f"{row['in_distribution']:.3f}"
            lines.append(
                f"| {kind} | {strength} | {with_interval(row, 'accuracy')} "
                f"| {row['balanced_accuracy']:.4f} | {row['calibration_error']:.3f} | {inside} |"
            )
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], path: Path) -> None:
    """Accuracy under each change, with its interval; the line is the unchanged split's."""
    rows = [
        (f"{kind} {strength}".strip(), row)
        for kind, strengths in result["changes"].items()
        for strength, row in strengths.items()
    ]
    figure = Figure(figsize=(6, 0.22 * len(rows) + 0.8), layout="constrained")
    axis = figure.subplots()
    for place, (_, row) in enumerate(rows):
        axis.plot(row["interval"], [place, place], color="tab:blue")
        axis.plot(row["accuracy"], place, "o", color="tab:blue", markersize=4)
    axis.axvline(rows[0][1]["accuracy"], color="grey", linestyle=":")
    axis.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("accuracy")
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    parser.add_argument("--output", type=Path, help="folder for the report")
    arguments = parser.parse_args()
    result = report(load_model(arguments.checkpoint), load_or_exit(arguments.data).split(arguments.split))
    if not arguments.output:
        print(json.dumps(result, indent=2))
        return
    write_json(arguments.output / "robustness.json", result)
    (arguments.output / "robustness.md").write_text(markdown(result))
    plot(result, arguments.output / "robustness.svg")
    print(markdown(result))


if __name__ == "__main__":
    main()
