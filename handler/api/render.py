"""Attribution maps to pictures: smoothing, colour map, overlay, and their files.

Pictures in the colours of evidence, without smoothing, need NumPy and Pillow alone: the functions for other pictures
import their packages themselves.
"""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handler.explain.display import Display

SEQUENTIAL = ("inferno", "viridis", "magma", "plasma", "cividis", "gray")
DIVERGING = ("vik",)
# One hue for evidence, another for evidence against; its strength is the opacity, so that the tile's stain stays
# visible. Orange and blue differ for red-green blindness, and neither is a colour of haematoxylin and eosin.
EVIDENCE = "evidence"
FOR, AGAINST = (230, 81, 0), (21, 101, 192)
OVERLAY_QUALITY = 85
FULL_NAMES = {"vik": "crameri:vik"}


@dataclass(frozen=True)
class Rendering:
    """How to draw a map. `colormap` None means inferno, or vik for signed maps.

    `alpha` is the heat map's share of the overlay, `size` the pictures' longer side in pixels, `sigma` the width of a
    Gaussian filter in pixels of the network's input, applied before stretching. The values' `percentile` (signed: of
    their magnitude) gets the colour at the end of the map, and so do the values beyond it.
    """

    colormap: str | None = None
    alpha: float = 0.5
    size: int = 224
    sigma: float = 0.0
    percentile: float = 100.0


@dataclass(frozen=True)
class Picture:
    """A heat map in the colours of a map, and the same over the image; `low` and `high` are the values at the ends of
    the colour map."""

    heatmap: Image.Image
    overlay: Image.Image
    low: float
    high: float
    colormap: str


class Canvas:
    """Draws maps over one image, uint8 `[H, W, 3]`. `input_size` is the side of the network's input."""

    def __init__(self, image: NDArray[np.uint8], input_size: int) -> None:
        self._image = Image.fromarray(image)
        self._input_size = input_size
        # By size: to resize a large image costs more than to draw a map.
        self._backgrounds: dict[tuple[int, int], Image.Image] = {}

    def draw(self, strength: NDArray[np.float32], display: Display, rendering: Rendering) -> Picture:
        """Stretch a finite map `[h, w]` to the colour map's range and lay it over the image.

        Signed maps are stretched symmetrically about zero, others from minimum to maximum, or from zero in the colours
        of evidence; a constant map is drawn at the colour map's start (signed: middle). Both pictures have the image's
        aspect.
        """
        smooth = _smooth(strength, rendering.sigma, self._input_size)
        colormap = rendering.colormap or ("vik" if display == "signed" else "inferno")
        low, high = _range(smooth, display, colormap, rendering.percentile)
        constant = np.full_like(smooth, 0.5 if display == "signed" else 0)
        stretched = (smooth - low) / (high - low) if high > low else constant
        size = display_size(self._image.width, self._image.height, rendering.size)
        levels = Image.fromarray(stretched.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
        heatmap = Image.fromarray(np.rint(np.clip(np.asarray(levels), 0, 1) * 255).astype(np.uint8), "L")
        heatmap.putpalette(_palette(colormap, display))
        if colormap == EVIDENCE:
            heatmap.info["transparency"] = _opacities(display)
        layer = heatmap.convert("RGBA")
        mask = layer.getchannel("A").point(lambda opacity: round(opacity * rendering.alpha))
        overlay = Image.composite(layer.convert("RGB"), self._background(size), mask)
        return Picture(heatmap, overlay, low, high, colormap)

    def _background(self, size: tuple[int, int]) -> Image.Image:
        if size not in self._backgrounds:
            self._backgrounds[size] = self._image.resize(size, Image.Resampling.BILINEAR)
        return self._backgrounds[size]


def strength_of(values: NDArray[np.floating[Any]], display: Display) -> NDArray[np.float32]:
    """One number per pixel `[h, w]` of a signed map `[h, w]` or `[3, h, w]`."""
    if display == "magnitude":
        return np.abs(values).sum(axis=0) if values.ndim == 3 else np.abs(values)
    flat = values.sum(axis=0) if values.ndim == 3 else values
    return np.maximum(flat, 0) if display == "positive" else flat


def display_size(width: int, height: int, longest: int) -> tuple[int, int]:
    """Width and height with the same aspect and the longer side `longest`; the shorter is at least 1."""
    scale = longest / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def png(image: Image.Image) -> bytes:
    """The file of a heat map, with every level and its opacity."""
    return _encode(image, "PNG", compress_level=1)


def jpeg(image: Image.Image) -> bytes:
    """The file of an overlay. As PNG it would be most of an answer's bytes."""
    return _encode(image, "JPEG", quality=OVERLAY_QUALITY)


def _range(values: NDArray[np.float32], display: Display, colormap: str, percentile: float) -> tuple[float, float]:
    """The values at the ends of the colour map."""
    if display == "signed":
        high = float(np.percentile(np.abs(values), percentile))
        return -high, high
    low = 0.0 if colormap == EVIDENCE else float(values.min())
    return low, float(np.percentile(values, percentile))


def _smooth(strength: NDArray[np.float32], sigma: float, input_size: int) -> NDArray[np.float32]:
    if sigma == 0:
        return strength
    from scipy.ndimage import gaussian_filter

    enlarged = Image.fromarray(strength).resize((input_size, input_size), Image.Resampling.BILINEAR)
    return gaussian_filter(np.asarray(enlarged), sigma)


def _opacities(display: Display) -> bytes:
    """The opacity of each level of a map in the colours of evidence: of its distance from no evidence."""
    levels = np.arange(256)
    return (np.abs(2 * levels - 255) if display == "signed" else levels).astype(np.uint8).tobytes()


@lru_cache(maxsize=2 * len(SEQUENTIAL + DIVERGING) + 2)
def _palette(name: str, display: Display) -> bytes:
    """The colour of each level."""
    if name == EVIDENCE:
        against = 128 if display == "signed" else 0
        return bytes(AGAINST) * against + bytes(FOR) * (256 - against)
    from cmap import Colormap

    return np.rint(Colormap(FULL_NAMES.get(name, name)).lut(256)[:, :3] * 255).astype(np.uint8).tobytes()


def _encode(image: Image.Image, file_format: str, **options: int) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()
