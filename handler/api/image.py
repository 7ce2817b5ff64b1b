"""Bytes of an image file to RGB pixels, or one typed error."""

import warnings
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from handler.api.errors import RequestError

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")

# `decode_image` has its own, stricter limit, checked before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None
# What a damaged file makes Pillow say is no news of the server's.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True)
class ImageLimits:
    """The smallest accepted side and the largest accepted number of pixels."""

    min_side: int = 16
    max_pixels: int = 4096 * 4096


def decode_image(data: bytes, limits: ImageLimits) -> NDArray[np.uint8]:
    """Decode JPEG, PNG, TIFF, BMP or WebP to uint8 RGB `[H, W, 3]`.

    EXIF rotation is applied, alpha is composited on white (the colour of an empty slide), palette, CMYK and grey
    become RGB, 16-bit grey keeps its upper 8 bits, ICC profiles are ignored. Raises `RequestError`.
    """
    if not data:
        raise RequestError("image_missing", "The request holds no image.", "data")
    image = _open(data)
    _check(image, limits)
    return np.array(_to_rgb(_load(image)))


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        message = f"The data is not an image of a supported format ({', '.join(FORMATS)})."
        raise RequestError("image_unreadable", message, "data", 415) from error
    except Exception as error:
        raise _broken(error) from error


def _check(image: Image.Image, limits: ImageLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        message = f"The image has {width}x{height} pixels; at most {limits.max_pixels} pixels are accepted."
        raise RequestError("image_too_large", message, "data", 413)
    if min(width, height) < limits.min_side:
        message = f"The image has {width}x{height} pixels; each side needs at least {limits.min_side}."
        raise RequestError("image_too_small", message, "data")
    try:
        frames = getattr(image, "n_frames", 1)
    except Exception as error:
        raise _broken(error) from error
    if frames > 1:
        message = f"The file holds {frames} frames; send one still image."
        raise RequestError("image_animated", message, "data")
    if image.mode not in (*SIXTEEN_BIT, *ALPHA, *PLAIN):
        message = f"Pixels of type {image.mode} have no defined range; send 8 or 16 bits per channel."
        raise RequestError("image_mode_unsupported", message, "data", 415)


def _load(image: Image.Image) -> Image.Image:
    try:
        image.load()
        return ImageOps.exif_transpose(image)
    except Exception as error:
        raise _broken(error) from error


def _broken(error: Exception) -> RequestError:
    """Pillow's decoders raise many types on damaged files; what they say tells cut from corrupt."""
    if "truncated" in str(error).lower():
        return RequestError("image_truncated", "The image file ends before its last pixel.", "data")
    return RequestError("image_corrupt", "The image file is damaged and cannot be decoded.", "data")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in SIXTEEN_BIT:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ALPHA or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")
