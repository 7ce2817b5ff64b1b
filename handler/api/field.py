"""The field of view: how much tissue an image shows, and the square of it that the network classifies.

PathMNIST's tiles show 112 x 112 micrometres. A class is learned at that scale, and an image at another one looks like
another tissue (docs/field_of_view.md). Like all that it imports, this module needs no PyTorch.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from handler.api.errors import RequestError
from handler.api.formats.picture import Scale

# The side of the tissue that a tile of the data set shows, in micrometres: 224 pixels at 0.5.
TILE_MICRONS = 112.0
# A field this much smaller or larger still is a tile's.
TOLERANCE = 0.15
# A longer side is no tile with a margin, but a region, of which the centre would say little.
LARGEST = 2 * TILE_MICRONS
# Micrometres a pixel that an image of a tile can have: 0.1 is beyond any objective, 7 leaves 16 pixels of the tile, the
# smallest image. Screens and printers (72 to 600 dots an inch are 353 to 42 micrometres) are outside, and so is an
# objective's power (10, 20, 40).
PLAUSIBLE = (0.1, 7.0)

# Sizes of a pixel that differ by less say the same.
SAME = 0.01

Pixels = NDArray[np.uint8]
Source = Literal["request", "tiff", "ome", "png"]


@dataclass(frozen=True)
class Box:
    """A part of an image, in pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Field:
    """What is known of an image's field of view.

    `mpp` is the size of a pixel in micrometres and `source` says who stated it; both are None if nobody did plausibly.
    `microns` is the side of the square that was classified, None without `mpp`. `cut` is that square, if it is not the
    whole image. `ignored` is a size that the file states and that was not used. `notes` are sentences for a reader.
    """

    mpp: float | None = None
    source: Source | None = None
    microns: float | None = None
    cut: Box | None = None
    ignored: Scale | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The answer's `field`; `assumed` is the field that is taken for granted if none is known."""
        return {
            "microns": self.microns,
            "assumed": TILE_MICRONS if self.microns is None else None,
            "mpp": self.mpp,
            "source": self.source,
            "plausible_mpp": list(PLAUSIBLE),
            "ignored": vars(self.ignored) if self.ignored else None,
            "cut": vars(self.cut) if self.cut else None,
        }


def view(pixels: Pixels, requested: float | None, stated: Scale | None) -> tuple[Pixels, Field]:
    """The part of an image `[H, W, 3]` to classify, and its field of view.

    `requested` is the request's micrometres a pixel, which goes before what the file states. With either, the centre
    square is classified, cut to 112 micrometres if the shorter side is longer than that by more than the tolerance.
    Without, the whole image is taken for a tile. Raises `RequestError` if the image shows too little or a region.
    """
    usable = stated if stated and PLAUSIBLE[0] <= stated.mpp <= PLAUSIBLE[1] else None
    if requested is None and usable is None:
        return pixels, Field(ignored=stated, notes=_squeezed(pixels))
    mpp, source = _known(requested, usable)
    height, width = pixels.shape[:2]
    box = _square(width, height, mpp, source)
    is_cut = (box.width, box.height) != (width, height)
    ignored = None if stated is None or abs(stated.mpp / mpp - 1) <= SAME else stated
    notes = (*_contradiction(mpp, ignored if ignored == usable else None), *_centre(box, mpp if is_cut else None))
    part = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
    microns = round(box.width * mpp, 3)
    return np.ascontiguousarray(part), Field(mpp, source, microns, box if is_cut else None, ignored, notes)


def _known(requested: float | None, usable: Scale | None) -> tuple[float, Source]:
    if requested is not None:
        return requested, "request"
    assert usable
    return usable.mpp, usable.source


def _square(width: int, height: int, mpp: float, source: Source) -> Box:
    """The centre square to classify. Raises `RequestError`."""
    shorter, longer = min(width, height), max(width, height)
    if shorter * mpp < TILE_MICRONS * (1 - TOLERANCE):
        needed = f"at least {TILE_MICRONS * (1 - TOLERANCE):g} are needed"
        raise _refusal("field_too_small", (width, height), mpp, source, needed)
    if longer * mpp > LARGEST:
        needed = f"at most {LARGEST:g} are accepted, and /regions/pathmnist takes larger ones"
        raise _refusal("field_too_large", (width, height), mpp, source, needed)
    side = round(TILE_MICRONS / mpp) if shorter * mpp > TILE_MICRONS * (1 + TOLERANCE) else shorter
    return Box((width - side) // 2, (height - side) // 2, side, side)


def _refusal(code: str, size: tuple[int, int], mpp: float, source: Source, needed: str) -> RequestError:
    width, height = (f"{side * mpp:.4g}" for side in size)
    message = (
        f"At {mpp:.4g} micrometres a pixel the image shows {width} x {height} micrometres. "
        f"A tile shows {TILE_MICRONS:g}; {needed}."
    )
    if source == "request":
        return RequestError(code, message, "mpp")
    return RequestError(code, f"{message} The file states the scale ({source}); 'mpp' overrides it.", "data")


def _squeezed(pixels: Pixels) -> tuple[str, ...]:
    height, width = pixels.shape[:2]
    if height == width:
        return ()
    return (
        f"The image has {width} x {height} pixels and was squeezed to a square; with 'mpp', the micrometres a pixel, "
        "its centre square is classified instead.",
    )


def _contradiction(mpp: float, stated: Scale | None) -> tuple[str, ...]:
    if stated is None:
        return ()
    return (f"The request says {mpp:.4g} micrometres a pixel, the file says {stated.mpp:.4g} ({stated.source}).",)


def _centre(box: Box, mpp: float | None) -> tuple[str, ...]:
    if mpp is None:
        return ()
    side = f"{box.width * mpp:.4g}"
    return (f"The centre of the image was classified, {side} x {side} micrometres.",)
