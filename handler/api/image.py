"""Bytes of an image file to sRGB pixels, or one typed error."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handler.api.colour import Encoding, cmyk_to_srgb, lab_to_srgb, to_8_bits
from handler.api.errors import RequestError
from handler.api.formats.bmp import open_bmp
from handler.api.formats.jpeg import open_jpeg
from handler.api.formats.picture import Picture, Raster, Scale, corrupt, truncated
from handler.api.formats.png import open_png
from handler.api.formats.tiff import open_tiff
from handler.api.formats.webp import open_webp
from handler.api.icc import ProfileError, read_profile

# How each accepted format begins, and its reader.
READERS: dict[str, tuple[re.Pattern[bytes], Callable[[bytes], Picture]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), open_jpeg),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), open_png),
    "TIFF": (re.compile(rb"II[*+]\0|MM\0[*+]"), open_tiff),
    "BMP": (re.compile(rb"BM"), open_bmp),
    "WEBP": (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), open_webp),
}
FORMATS = tuple(READERS)
# First bytes, at their offset, of other files that people send.
OTHERS = (
    (0, b"GIF8", "a GIF"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 file"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL file"),
    (0, b"\xff\x0a", "a JPEG XL file"),
    (4, b"ftypavi", "an AVIF file"),
    (4, b"ftyp", "a HEIF or video file"),
    (0, b"%PDF", "a PDF"),
    (0, b"8BPS", "a Photoshop file"),
    (128, b"DICM", "a DICOM file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"<", "XML, HTML or SVG"),
)


@dataclass(frozen=True)
class ImageLimits:
    """The smallest and largest accepted side and the largest accepted number of pixels."""

    min_side: int = 16
    max_side: int = 16384
    max_pixels: int = 4096 * 4096


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """sRGB pixels, uint8 `[H, W, 3]`, sentences on what became of the file's own colours, and the scale that the file
    states."""

    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()
    scale: Scale | None = None


def decode_image(data: bytes, limits: ImageLimits) -> DecodedImage:
    """Decode JPEG, PNG, TIFF, BMP or WebP.

    Colours are converted to sRGB, alpha is laid on white (the colour of an empty slide), samples of more than 8 bits
    keep their upper 8, and the orientation is applied. Raises `RequestError` for everything that is not one picture in
    a layout with one meaning.
    """
    if not data:
        raise RequestError("image_missing", "The request holds no image.", "data")
    try:
        picture = _reader(data)(data)
        check_size(picture.width, picture.height, limits)
        return _to_pixels(picture.read(), picture.scale)
    except RequestError:
        raise
    except Exception as error:
        # Decoders raise many types on damaged files; what they say tells cut from corrupt.
        raise (truncated() if "truncated" in str(error).lower() else corrupt()) from error


def check_size(width: int, height: int, limits: ImageLimits) -> None:
    """Raises `RequestError` for a size outside the limits."""
    size = f"The image has {width}x{height} pixels"
    if width * height > limits.max_pixels:
        raise RequestError("image_too_large", f"{size}; at most {limits.max_pixels} are accepted.", "data", 413)
    if max(width, height) > limits.max_side:
        raise RequestError("image_too_large", f"{size}; each side has at most {limits.max_side}.", "data", 413)
    if min(width, height) < limits.min_side:
        raise RequestError("image_too_small", f"{size}; each side needs at least {limits.min_side}.", "data")


def _reader(data: bytes) -> Callable[[bytes], Picture]:
    for signature, reader in READERS.values():
        if signature.match(data):
            return reader
    kind = next((name for start, first, name in OTHERS if data[start : start + len(first)] == first), None)
    said = f"The data is {kind}" if kind else "The data is not an image of a supported format"
    raise RequestError("image_unreadable", f"{said}. Send {', '.join(FORMATS)}.", "data", 415)


def _to_pixels(raster: Raster, scale: Scale | None) -> DecodedImage:
    pixels, notes = _to_srgb(raster)
    if raster.alpha is not None:
        pixels = _on_white(pixels, to_8_bits(raster.alpha))
    return DecodedImage(np.require(_turn(pixels, raster.orientation), requirements=("C", "W")), notes, scale)


def _to_srgb(raster: Raster) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """sRGB `[H, W, 3]`, and what became of the file's colours."""
    samples = raster.samples
    if raster.space == "Lab":
        return lab_to_srgb(samples), ()
    try:
        colour = read_profile(raster.colour, samples.shape[2]) if isinstance(raster.colour, bytes) else raster.colour
        if colour is None or (isinstance(colour, Encoding) and colour.is_srgb()):
            return _plain(raster), ()
        converted = colour.to_srgb(samples)
    except ProfileError as error:
        return _plain(raster), (f"The colour profile was not used, because {error}: samples were read as sRGB.",)
    return converted, (f'The colours were converted from "{colour.name}" to sRGB.',)


def _plain(raster: Raster) -> NDArray[np.uint8]:
    """Grey, RGB or CMYK without a profile to RGB."""
    if raster.space == "CMYK":
        return cmyk_to_srgb(raster.samples)
    return np.broadcast_to(to_8_bits(raster.samples), (*raster.samples.shape[:2], 3))


def _on_white(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if not alpha.any():
        raise RequestError("image_transparent", "Every pixel of the image is fully transparent.", "data")
    opacity = alpha[..., None].astype(np.uint16)
    return ((pixels * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)


def _turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Upright pixels from an Exif orientation: above 4 rows and columns change places, then either may be mirrored."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    rows, columns = ((1, 1), (1, -1), (-1, -1), (-1, 1))[(orientation - 1) % 4]
    return pixels[::rows, ::columns]
