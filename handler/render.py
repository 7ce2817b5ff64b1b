"""Attribution maps to pictures: colour map, overlay, PNG, base64."""

import base64
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from cmap import Colormap
from numpy.typing import NDArray
from PIL import Image

COLORMAP = "inferno"
ALPHA = 0.5
LONGEST_SIDE = 224


@dataclass(frozen=True)
class Picture:
    """A heat map and its overlay as PNG in base64; `low` and `high` are the values drawn darkest and brightest."""

    heatmap: str
    overlay: str
    low: float
    high: float


def draw(strength: NDArray[np.float32], image: NDArray[np.uint8]) -> Picture:
    """Stretch a finite map `[h, w]` from its minimum to its maximum and lay it over the image `[H, W, 3]`.

    Both pictures have the image's aspect, their longer side 224 pixels. A constant map is drawn darkest.
    """
    size = display_size(image.shape[1], image.shape[0])
    low, high = float(strength.min()), float(strength.max())
    stretched = (strength - low) / (high - low) if high > low else np.zeros_like(strength)
    levels = Image.fromarray(stretched.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    index = np.rint(np.clip(np.asarray(levels), 0, 1) * 255).astype(np.uint8)
    heatmap = Image.fromarray(_palette()[index])
    background = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    return Picture(_png(heatmap), _png(Image.blend(background, heatmap, ALPHA)), low, high)


def display_size(width: int, height: int) -> tuple[int, int]:
    """Width and height with the same aspect and the longer side 224; the shorter is at least 1."""
    scale = LONGEST_SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


@lru_cache(maxsize=1)
def _palette() -> NDArray[np.uint8]:
    return np.rint(Colormap(COLORMAP).lut(256)[:, :3] * 255).astype(np.uint8)


def _png(image: Image.Image) -> str:
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
