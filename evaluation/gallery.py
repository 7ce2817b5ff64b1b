"""A picture of tiles with their explanations: `python -m evaluation.gallery --output docs/gallery.png`.

One column per tile; rows show the tile and the overlay of each method for the predicted class, as the server draws
them. Without `--data` the tiles are generated.
"""

import argparse
import base64
import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from handler.api.image import ImageLimits
from handler.api.request import RawRequest
from handler.api.service import Service
from handler.classes import CODES, NUM_CLASSES
from handler.model.checkpoint import load_model
from handler.model.engine import Engine
from training.checkpoint import SHIPPED
from training.data import load
from training.synthetic import generate

SHOWN = ("gradcam", "layercam", "integrated_gradients")
CELL = 112
HEADER = 20
MARGIN = 96


def one_of_each_class(source: str | None) -> NDArray[np.uint8]:
    """Nine tiles, one per class, in class order."""
    if source is None:
        return generate(NUM_CLASSES, seed=8, size=224).images
    split = load(source).test
    return np.stack([split.images[np.flatnonzero(split.labels == class_id)[0]] for class_id in range(NUM_CLASSES)])


def explain(service: Service, tile: NDArray[np.uint8], methods: Sequence[str] = SHOWN) -> dict[str, Any]:
    """The server's answer with the methods shown, smoothed a little."""
    buffer = BytesIO()
    Image.fromarray(tile).save(buffer, "PNG")
    fields = {"body": buffer.getvalue(), "method": ",".join(methods), "sigma": "2"}
    (response,) = service.respond([RawRequest(fields, explain=True)])
    answer: dict[str, Any] = json.loads(response.body)
    return answer


def draw_gallery(service: Service, tiles: NDArray[np.uint8]) -> Image.Image:
    """Lay out tiles and overlays; the header says true class and predicted class."""
    size = (MARGIN + CELL * len(tiles), HEADER + CELL * (1 + len(SHOWN)))
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for row, name in enumerate(("tile", *SHOWN)):
        pen.text((4, HEADER + CELL * row + CELL // 2), name.replace("_", "\n"), "black", font, anchor="lm")
    for column, tile in enumerate(tiles):
        answer = explain(service, tile)
        left = MARGIN + CELL * column
        prediction = answer["prediction"]
        caption = f"{CODES[column]}: {prediction['code']} {prediction['probability']:.2f}"
        pen.text((left + CELL // 2, HEADER // 2), caption, "black", font, anchor="mm")
        overlays = [decode_picture(item["overlay"]) for item in answer["explanations"]]
        for row, picture in enumerate((Image.fromarray(tile), *overlays)):
            sheet.paste(picture.resize((CELL - 2, CELL - 2), Image.Resampling.BICUBIC), (left, HEADER + CELL * row))
    return sheet


def decode_picture(picture: str) -> Image.Image:
    """A picture of an answer."""
    return Image.open(BytesIO(base64.b64decode(picture))).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", metavar="medmnist|FILE.npz", help="show test tiles of this data instead")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, help="folder with weights and card")
    arguments = parser.parse_args()
    service = Service(Engine(load_model(arguments.checkpoint), torch.device("cpu")), ImageLimits())
    sheet = draw_gallery(service, one_of_each_class(arguments.data))
    sheet.quantize(256, dither=Image.Dither.NONE).save(arguments.output, optimize=True)


if __name__ == "__main__":
    main()
