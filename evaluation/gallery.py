"""A picture of tiles with their explanations: `python -m evaluation.gallery --output docs/gallery.png`.

One column per tile; rows show the tile and the overlay of each method for the predicted class, as the server draws
them. Without `--data` the tiles are the web page's examples, which are generated.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from handler.api.render import Canvas, Rendering, strength_of
from handler.classes import CODES, NUM_CLASSES
from handler.classifier import Classifier
from handler.explain.registry import METHODS
from training.checkpoint import SHIPPED
from training.data import load_or_exit

EXAMPLES = Path(__file__).parent.parent / "web" / "examples"
SHOWN = ("gradcam", "layercam", "integrated_gradients")
# A little smoothing, in pixels of the network's input.
RENDERING = Rendering(sigma=2.0)
CELL = 112
HEADER = 20
MARGIN = 96


def one_of_each_class(source: str | None) -> NDArray[np.uint8]:
    """Nine tiles, one per class, in class order."""
    if source is None:
        return np.stack([np.asarray(Image.open(EXAMPLES / f"{code}.png").convert("RGB")) for code in CODES])
    split = load_or_exit(source).test
    return np.stack([split.images[np.flatnonzero(split.labels == class_id)[0]] for class_id in range(NUM_CLASSES)])


def draw_overlay(classifier: Classifier, tile: NDArray[np.uint8], method: str) -> Image.Image:
    """The tile under its map for the predicted class, smoothed a little."""
    (explanation,) = classifier.explain([tile], method)
    display = METHODS[method].display
    canvas = Canvas(tile, classifier.model.preprocessing.input_size)
    return canvas.draw(strength_of(explanation.attribution, display), display, RENDERING).overlay


def draw_gallery(classifier: Classifier, tiles: NDArray[np.uint8]) -> Image.Image:
    """Lay out tiles and overlays; the header says true class and predicted class."""
    size = (MARGIN + CELL * len(tiles), HEADER + CELL * (1 + len(SHOWN)))
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for row, name in enumerate(("tile", *SHOWN)):
        pen.text((4, HEADER + CELL * row + CELL // 2), name.replace("_", "\n"), "black", font, anchor="lm")
    for column, (tile, prediction) in enumerate(zip(tiles, classifier.predict(list(tiles)), strict=True)):
        left = MARGIN + CELL * column
        caption = f"{CODES[column]}: {prediction.tissue.code} {prediction.probability:.2f}"
        pen.text((left + CELL // 2, HEADER // 2), caption, "black", font, anchor="mm")
        overlays = [draw_overlay(classifier, tile, method) for method in SHOWN]
        for row, picture in enumerate((Image.fromarray(tile), *overlays)):
            sheet.paste(picture.resize((CELL - 2, CELL - 2), Image.Resampling.BICUBIC), (left, HEADER + CELL * row))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", metavar="medmnist|FILE.npz", help="show test tiles of this data instead")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    arguments = parser.parse_args()
    sheet = draw_gallery(Classifier.load(arguments.checkpoint), one_of_each_class(arguments.data))
    sheet.quantize(256, dither=Image.Dither.NONE).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
