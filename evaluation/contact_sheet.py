"""Many test tiles with their explanations: `python -m evaluation.contact_sheet --data FILE.npz`.

Each tile is followed by one overlay for each method, for the predicted class, as the server draws them. The tiles are
spread evenly over the classes. The sheet is for looking at; the tiles belong to the data set, so it goes into `runs/`.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from evaluation.gallery import draw_overlay
from handler.classes import CODES
from handler.classifier import Classifier
from training.checkpoint import SHIPPED
from training.data import Split, add_data_argument, load_or_exit

METHODS = ("gradcam", "layercam", "integrated_gradients", "occlusion")
CELL = 112
CAPTION = 18
COLUMNS = 3
GAP = 12


def draw_strip(classifier: Classifier, tile: NDArray[np.uint8], class_id: int) -> Image.Image:
    """One tile and its overlays; the caption says true class, predicted class and probability, red if they differ."""
    (prediction,) = classifier.predict([tile])
    strip = Image.new("RGB", (CELL * (1 + len(METHODS)), CAPTION + CELL), "white")
    caption = f"{CODES[class_id]}: {prediction.tissue.code} {prediction.probability:.2f}"
    colour = "black" if prediction.tissue.class_id == class_id else "red"
    ImageDraw.Draw(strip).text((2, CAPTION // 2), caption, colour, ImageFont.load_default(12), anchor="lm")
    pictures = [Image.fromarray(tile), *(draw_overlay(classifier, tile, method) for method in METHODS)]
    for column, picture in enumerate(pictures):
        strip.paste(picture.resize((CELL - 2, CELL - 2), Image.Resampling.BICUBIC), (CELL * column, CAPTION))
    return strip


def draw_sheet(classifier: Classifier, split: Split) -> Image.Image:
    """All tiles of a split in columns of strips; the first line names the methods."""
    width, height = CELL * (1 + len(METHODS)) + GAP, CAPTION + CELL
    rows = -(-len(split) // COLUMNS)
    sheet = Image.new("RGB", (width * COLUMNS, CAPTION + height * rows), "white")
    ImageDraw.Draw(sheet).text((2, CAPTION // 2), f"tile, {', '.join(METHODS)}", "black", anchor="lm")
    for index, (tile, class_id) in enumerate(zip(tqdm(split.images, disable=None), split.labels, strict=True)):
        column, row = divmod(index, rows)
        sheet.paste(draw_strip(classifier, tile, int(class_id)), (width * column, CAPTION + height * row))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--tiles", type=int, default=45, help="how many, spread evenly over the classes")
    parser.add_argument("--output", type=Path, default=Path("runs/contact_sheet.png"))
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    arguments = parser.parse_args()
    split = load_or_exit(arguments.data).test.of_every_class(arguments.tiles)
    sheet = draw_sheet(Classifier.load(arguments.checkpoint), split)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    main()
