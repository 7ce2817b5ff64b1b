"""A map's cells as a picture, for programs that lay it over the image: one pixel for each cell, glass transparent."""

import numpy as np
from PIL import Image

from regions.colours import BY_CLASS_ID
from regions.tissue_map import TissueMap

OPAQUE = 255


def draw_cells(tissue_map: TissueMap) -> Image.Image:
    """The class with the highest logit in each cell, in its colour, RGBA."""
    logits = tissue_map.cells()
    is_tissue = ~np.isnan(logits[0])
    colours = np.array([(*colour, OPAQUE) for colour in BY_CLASS_ID], np.uint8)
    picture = colours[np.nan_to_num(logits).argmax(axis=0)]
    picture[~is_tissue] = 0
    return Image.fromarray(picture)
