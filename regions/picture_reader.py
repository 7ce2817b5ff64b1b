"""Ordinary pictures (PNG, JPEG, BMP, WebP), decoded as the server decodes a tile."""

from io import BytesIO
from pathlib import Path

from PIL import Image

from handler.api.errors import RequestError
from handler.api.image import ImageLimits, decode_image
from regions.errors import RegionError
from regions.resolution import Mpp, mpp_of_density
from regions.source import Level, Pixels

# A picture is decoded as a whole, so it has a limit: 400 MB of pixels.
LIMITS = ImageLimits(min_side=1, max_side=65535, max_pixels=2**27)
METRE = 1_000_000.0
INCH = 25_400.0


class PictureReader:
    """Reads pixels that are in memory, `[H, W, 3]`."""

    bounds = (0, 0)

    def __init__(self, pixels: Pixels, mpp: Mpp | None, kind: str) -> None:
        self._pixels = pixels
        self.mpp = mpp
        self.kind = kind
        self.levels = (Level(pixels.shape[1], pixels.shape[0], 1.0, 1.0),)

    def read(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        return self._pixels[y : y + height, x : x + width]


def open_picture(path: Path) -> PictureReader | None:
    """The picture, or None if the file is none. Raises `RegionError` if it is damaged or too large."""
    data = path.read_bytes()
    try:
        pixels = decode_image(data, LIMITS).pixels
    except RequestError as error:
        if error.code == "image_unreadable":
            return None
        raise RegionError(error.code, error.message) from error
    with Image.open(BytesIO(data)) as picture:
        return PictureReader(pixels, _mpp(picture), f"picture {picture.format}")


def _mpp(picture: Image.Image) -> Mpp | None:
    """From PNG's pHYs in pixels per metre, or from the density of JPEG and BMP."""
    if picture.format == "PNG":
        # Pillow converts pHYs to dpi, which are exact enough: 0.0254 x pixels per metre.
        dpi = picture.info.get("dpi")
        return mpp_of_density(dpi[0] / 0.0254, dpi[1] / 0.0254, METRE) if dpi else None
    dpi = picture.info.get("dpi")
    return mpp_of_density(dpi[0], dpi[1], INCH) if dpi else None
