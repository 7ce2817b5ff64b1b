"""What every reader returns: the size from the header first, then the samples and their meaning."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from handler.api.colour import Colour, Samples
from handler.api.errors import RequestError

Space = Literal["grey", "RGB", "CMYK", "Lab"]
ScaleSource = Literal["tiff", "ome", "png"]


@dataclass(frozen=True)
class Raster:
    """The samples of a picture, and what they mean.

    `samples` is uint8 or uint16 `[H, W, C]` and uses the type's whole range: grey and RGB 0 is dark, CMYK 0 is no ink,
    Lab is L* from 0 to 100, then a* and b* from -128 to 127 with 0 at half the range. `alpha` is `[H, W]` of the same
    type, None for an opaque picture; `samples` are not multiplied by it. `colour` is how the file encodes colour, None
    for sRGB. `orientation` is Exif's, 1 to 8.
    """

    samples: Samples
    space: Space
    alpha: Samples | None = None
    colour: Colour | None = None
    orientation: int = 1


@dataclass(frozen=True)
class Scale:
    """What a file states about the size of a pixel: micrometres, whether plausible or not, and where it states it."""

    mpp: float
    source: ScaleSource


@dataclass(frozen=True)
class Picture:
    """A file whose header was read: the stored size, a function that decodes the samples, and the stated scale."""

    width: int
    height: int
    read: Callable[[], Raster]
    scale: Scale | None = None


def part(data: bytes, start: int, length: int) -> bytes:
    """`length` bytes from `start`. Raises `RequestError` if the file ends before."""
    if start + length > len(data):
        raise truncated()
    return data[start : start + length]


def truncated() -> RequestError:
    return RequestError("image_truncated", "The image file ends before its last pixel.", "data")


def corrupt() -> RequestError:
    return RequestError("image_corrupt", "The image file is damaged and cannot be decoded.", "data")


def unsupported(layout: str) -> RequestError:
    """A valid file whose layout the server does not interpret."""
    message = f"{layout} is not supported. Send a PNG, or a TIFF of 8 or 16 bits a channel, plain or with LZW."
    return RequestError("image_mode_unsupported", message, "data", 415)


def too_complex(message: str) -> RequestError:
    """A file that asks for more work than its pixels need."""
    return RequestError("image_too_complex", message, "data", 413)


def several_pictures(message: str) -> RequestError:
    return RequestError("image_animated", message, "data")
