"""What the data looks like: `python -m evaluation.explore --data FILE.npz --output FOLDER`.

Writes exploration.json and exploration.md (images per class and split, colours of every class in every split, and how
far they move between splits), classes.svg, colours.svg, and samples.png, a grid of tiles.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from evaluation.classification import class_distribution
from evaluation.plots import plot_classes, save_figure
from handler.classes import CODES, NUM_CLASSES
from training.checkpoint import write_json
from training.data import SPLITS, PathMNIST, Split, add_data_argument, load_or_exit

SAMPLES = 8
CELL, MARGIN = 56, 48
CHANNELS = ("red", "green", "blue")


def colours(split: Split) -> dict[str, Any]:
    """Per class the mean of each channel over tiles, 0 to 255, and the standard deviation of the tiles' means; null
    for a class without tiles."""
    found: dict[str, Any] = {}
    for class_id, code in enumerate(CODES):
        images = split.images[split.labels == class_id]
        if len(images) == 0:
            found[code] = None
            continue
        means = images.reshape(len(images), -1, 3).mean(axis=1)
        found[code] = {
            "mean": [round(float(value), 2) for value in means.mean(axis=0)],
            "deviation": [round(float(value), 2) for value in means.std(axis=0)],
        }
    return found


def colour_shift(train: dict[str, Any], other: dict[str, Any]) -> dict[str, float | None]:
    """Per class the distance of the mean colours, in grey levels."""
    return {
        code: round(float(np.linalg.norm(np.subtract(train[code]["mean"], other[code]["mean"]))), 2)
        if train[code] and other[code]
        else None
        for code in CODES
    }


def explore(data: PathMNIST) -> dict[str, Any]:
    """All figures of the report."""
    by_split = {name: colours(data.split(name)) for name in tqdm(SPLITS)}
    return {
        "data_digest": data.digest,
        "tile_size": data.tile_size,
        "classes": class_distribution(data),
        "colours": by_split,
        "colour_shift_from_train": {name: colour_shift(by_split["train"], by_split[name]) for name in ("val", "test")},
    }


def markdown(result: dict[str, Any]) -> str:
    """The report as tables."""
    images = result["classes"]["images"]
    lines = ["| class | train | val | test | colour shift, val | colour shift, test |", "|---|---|---|---|---|---|"]
    shift = result["colour_shift_from_train"]
    for code in CODES:
        counts = " | ".join(str(images[name][code]) for name in SPLITS)
        moved = " | ".join("" if shift[name][code] is None else f"{shift[name][code]:.1f}" for name in ("val", "test"))
        lines.append(f"| {code} | {counts} | {moved} |")
    of_classes = result["classes"]["shift_from_train"]
    lines += [
        "",
        "Colour shift: distance of the class's mean colour from the training split's, in grey levels. Class shares "
        f"differ from the training split's by {of_classes['val']:.4f} in val and {of_classes['test']:.4f} in test.",
    ]
    return "\n".join(lines) + "\n"


def plot_colours(by_split: dict[str, Any], path: Path) -> None:
    """Mean and deviation of each channel, class by class and split by split."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots(len(CHANNELS), 1, sharex=True)
    for channel, (axis, name) in enumerate(zip(axes, CHANNELS, strict=True)):
        for offset, (split, of_class) in enumerate(by_split.items()):
            known = [class_id for class_id, code in enumerate(CODES) if of_class[code]]
            entries = [of_class[CODES[class_id]] for class_id in known]
            axis.errorbar(
                [class_id + (offset - 1) * 0.2 for class_id in known],
                [entry["mean"][channel] for entry in entries],
                [entry["deviation"][channel] for entry in entries],
                fmt="o",
                markersize=4,
                label=split,
            )
        axis.set_ylabel(name)
    axes[0].legend(ncols=len(by_split), fontsize=8)
    axes[-1].set_xticks(range(NUM_CLASSES), CODES)
    save_figure(figure, path)


def sample_sheet(split: Split) -> Image.Image:
    """A row of random tiles for each class."""
    sheet = Image.new("RGB", (MARGIN + SAMPLES * CELL, NUM_CLASSES * CELL), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    rng = np.random.default_rng(0)
    for class_id, code in enumerate(CODES):
        pen.text((4, class_id * CELL + CELL // 2), code, "black", font, anchor="lm")
        rows: NDArray[np.int64] = np.flatnonzero(split.labels == class_id)
        for column, row in enumerate(rng.permutation(rows)[:SAMPLES]):
            tile = Image.fromarray(split.images[row]).resize((CELL - 2, CELL - 2), Image.Resampling.NEAREST)
            sheet.paste(tile, (MARGIN + column * CELL, class_id * CELL))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder for the report")
    arguments = parser.parse_args()
    data = load_or_exit(arguments.data)
    result = explore(data)
    write_json(arguments.output / "exploration.json", result)
    (arguments.output / "exploration.md").write_text(markdown(result))
    plot_classes(result["classes"]["images"], arguments.output / "classes.svg")
    plot_colours(result["colours"], arguments.output / "colours.svg")
    sample_sheet(data.train).save(arguments.output / "samples.png")
    print(markdown(result))


if __name__ == "__main__":
    main()
