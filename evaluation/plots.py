"""Figures for the reports."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from evaluation.gallery import draw_overlay
from handler.classes import CODES
from handler.classifier import Classifier
from handler.model.checkpoint import Model
from handler.model.engine import Engine
from training.data import Split

CELL = 112
CAPTION = 18


def save_figure(figure: Any, path: Path) -> None:
    """Write an SVG. The same figure always gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "report"}):
        figure.savefig(path, metadata={"Date": None})
    figure.clear()


def plot_confusion(matrix: NDArray[np.int64], path: Path) -> None:
    """Counts, coloured by the share of the true class."""
    figure = Figure(figsize=(5.6, 5), layout="constrained")
    axis = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            shade = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, str(count), ha="center", va="center", color=shade, fontsize=8)
    axis.set_xticks(range(len(CODES)), CODES, fontsize=8)
    axis.set_yticks(range(len(CODES)), CODES, fontsize=8)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    save_figure(figure, path)


def plot_classes(counts: dict[str, dict[str, int]], path: Path) -> None:
    """The share of each class in each split."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(counts)
    for offset, (name, by_class) in enumerate(counts.items()):
        values = np.array([by_class[code] for code in CODES])
        axis.bar(np.arange(len(CODES)) + (offset - 1) * width, values / values.sum(), width, label=name)
    axis.set_xticks(range(len(CODES)), CODES)
    axis.set_ylabel("share of images")
    axis.legend()
    save_figure(figure, path)


def worst_sheet(model: Model, split: Split, worst: Sequence[dict[str, Any]], columns: int = 8) -> Image.Image:
    """Each tile above its Grad-CAM overlay for the predicted class, captioned `true > predicted probability`."""
    classifier = Classifier(Engine(model, torch.device("cpu")))
    rows = max(1, -(-len(worst) // columns))
    sheet = Image.new("RGB", (columns * CELL, rows * (CAPTION + 2 * CELL)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for place, item in enumerate(worst):
        left, top = place % columns * CELL, place // columns * (CAPTION + 2 * CELL)
        text = f"{item['truth']} > {item['predicted']} {item['probability']:.2f}"
        pen.text((left + CELL // 2, top + CAPTION // 2), text, "black", font, anchor="mm")
        image = split.images[item["index"]]
        pictures = (Image.fromarray(image), draw_overlay(classifier, image, "gradcam"))
        for row, picture in enumerate(pictures):
            shown = picture.resize((CELL - 2, CELL - 2), Image.Resampling.BICUBIC)
            sheet.paste(shown, (left, top + CAPTION + row * CELL))
    return sheet
