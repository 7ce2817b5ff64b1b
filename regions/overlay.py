"""A map over a small picture of its image: classes in colour, abstained tiles hatched, glass as it is."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from handler.classes import CODES
from regions.colours import ABSTAINED, BY_CLASS_ID, Colour
from regions.source import Pixels, Source
from regions.tissue_map import TissueMap

LONGEST = 1600
OPACITY = 0.45
HATCH = 6
LEGEND_HEIGHT = 28
SWATCH = 14


def draw_overlay(tissue_map: TissueMap, picture: Pixels) -> Image.Image:
    """Lay the classes over a picture of the whole image; a legend below names the classes that occur."""
    size = _fit(picture.shape[1], picture.shape[0])
    background = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)
    colours, opacity = _layer(tissue_map, size)
    drawn = Image.composite(Image.fromarray(colours), background, Image.fromarray(opacity))
    canvas = Image.new("RGB", (drawn.width, drawn.height + LEGEND_HEIGHT), "white")
    canvas.paste(drawn)
    _draw_legend(ImageDraw.Draw(canvas), tissue_map, drawn.height)
    return canvas


def picture_mpp(source: Source) -> float:
    """Micrometres per pixel of a thumbnail that is large enough for the overlay."""
    return max(source.width * source.mpp.x, source.height * source.mpp.y) / LONGEST


def _fit(width: int, height: int) -> tuple[int, int]:
    scale = LONGEST / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _layer(tissue_map: TissueMap, size: tuple[int, int]) -> tuple[Pixels, NDArray[np.uint8]]:
    """The colour and the opacity of every pixel."""
    colours = np.zeros((size[1], size[0], 3), np.uint8)
    opacity = np.zeros((size[1], size[0]), np.uint8)
    stripes = np.add.outer(np.arange(size[1]), np.arange(size[0])) % (2 * HATCH) < HATCH
    scale_x, scale_y = size[0] / tissue_map.width, size[1] / tissue_map.height
    boxes = tissue_map.boxes.tolist()
    for box, class_id, abstained in zip(boxes, tissue_map.classes, tissue_map.abstained, strict=True):
        left, top, right, bottom = box
        rows = slice(round(top * scale_y), round(bottom * scale_y))
        columns = slice(round(left * scale_x), round(right * scale_x))
        place = (rows, columns)
        colours[place] = BY_CLASS_ID[class_id]
        opacity[place] = round(255 * OPACITY)
        if abstained:
            colours[place] = ABSTAINED
            opacity[place] = np.where(stripes[place], round(255 * OPACITY), 0)
    return colours, opacity


def _draw_legend(draw: ImageDraw.ImageDraw, tissue_map: TissueMap, top: int) -> None:
    left, middle = 8, top + LEGEND_HEIGHT // 2
    for text, colour in _entries(tissue_map):
        width = SWATCH + 6 + draw.textlength(text)
        draw.rectangle((left, middle - SWATCH // 2, left + SWATCH, middle + SWATCH // 2), fill=colour)
        draw.text((left + SWATCH + 6, middle), text, fill="black", anchor="lm")
        left += int(width) + 16


def _entries(tissue_map: TissueMap) -> Iterator[tuple[str, Colour]]:
    composition = tissue_map.composition()
    for code, colour in zip(CODES, BY_CLASS_ID, strict=True):
        share = composition.classes[code]
        if share.tiles:
            yield f"{code} {share.mm2:.2f} mm2", colour
    if composition.abstained.tiles:
        yield f"abstained {composition.abstained.mm2:.2f} mm2", ABSTAINED
