"""What a visitor may send, checked before it leaves this page. All else about a file is for the server to judge."""

import re

# The server's own: max_request_size in config.properties, and how its formats begin.
MAX_BYTES = 16 * 1024 * 1024
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
BEGINNING = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|II[*+]\0|MM\0[*+]|BM|RIFF.{4}WEBP", re.DOTALL)


class UploadError(ValueError):
    """Why a file is not sent, in one sentence for a person."""


def check(data: bytes) -> None:
    """Raise `UploadError` for a file that is too large or of no format of the server's."""
    if len(data) > MAX_BYTES:
        raise UploadError(f"The file has {len(data) / 2**20:.0f} MB; at most {MAX_BYTES >> 20} MB can be sent.")
    if not BEGINNING.match(data):
        raise UploadError("This is not an image the model can read. Use JPEG, PNG, TIFF, BMP or WebP.")
