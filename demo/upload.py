"""What a visitor may send, checked before it leaves this page."""

import warnings
from io import BytesIO

from PIL import Image

# The server's own limits: max_request_size in config.properties, formats and sides in the README.
MAX_BYTES = 16 * 1024 * 1024
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
MIN_SIDE = 16


class UploadError(ValueError):
    """Why a file is not sent, in one sentence for a person."""


def check(data: bytes) -> None:
    """Raise `UploadError` for a file that the server would refuse; pixels are not decoded."""
    if len(data) > MAX_BYTES:
        raise UploadError(f"The file has {len(data) / 2**20:.0f} MB; at most {MAX_BYTES >> 20} MB can be sent.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            width, height = Image.open(BytesIO(data), formats=FORMATS).size
    except Exception as error:
        raise UploadError("This is not an image the model can read. Use JPEG, PNG, TIFF, BMP or WebP.") from error
    if min(width, height) < MIN_SIDE:
        raise UploadError(f"The image has {width} x {height} pixels; each side needs at least {MIN_SIDE}.")
