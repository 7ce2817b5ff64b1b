"""JPEG (ITU-T T.81): the markers are checked here, the picture is decoded by libjpeg-turbo through Pillow."""

import re
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

from handler.api.colour import Samples
from handler.api.formats.directory import EXIF, exif_orientation
from handler.api.formats.picture import Picture, Raster, Space, corrupt, part, too_complex, truncated, unsupported

SOI, EOI, SOS, APP0, APP1, APP2, APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE
# Huffman-coded frames: baseline, extended, progressive, lossless.
DECODED_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3}
PROGRESSIVE = 0xC2
OTHER_FRAMES = {
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "A hierarchical JPEG"),
    **dict.fromkeys((0xC9, 0xCA, 0xCB), "A JPEG with arithmetic coding"),
    0xF7: "JPEG-LS",
}
# Markers that stand alone (TEM, RSTn) are skipped: nothing follows from them, and RSTn occur within scans.
MARKER = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
MAX_SEGMENTS = 2000
# Encoders write about ten scans. Each one costs a pass over the whole picture.
MAX_SCANS = 100
MAX_SCAN_PIXELS = 1 << 28
SPACES: dict[str, Space] = {"L": "grey", "RGB": "RGB", "CMYK": "CMYK"}


@dataclass
class _File:
    """What the markers say. `missing` has the bits that no scan has brought, for each component 64 coefficients."""

    pieces: list[bytes] = field(default_factory=list)
    frame: bytes = b""
    progressive: bool = False
    scans: int = 0
    ended: bool = False
    exif: bytes = b""
    profile: dict[int, bytes] = field(default_factory=dict)
    missing: dict[int, np.ndarray[tuple[int], np.dtype[np.uint8]]] = field(default_factory=dict)


def open_jpeg(data: bytes) -> Picture:
    """Read the markers up to the end of the first picture. What follows it is ignored, further pictures (MPF) too."""
    file = _read_markers(data)
    frame = file.frame
    if len(frame) < 6 or not file.scans:
        raise truncated() if not file.ended else corrupt()
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    if frame[0] != 8:
        raise unsupported(f"A JPEG with {frame[0]} bits a sample")
    if frame[5] not in (1, 3, 4):
        raise unsupported(f"A JPEG with {frame[5]} channels")
    if not height:
        raise unsupported("A JPEG that states its height after its first scan (DNL)")
    return Picture(width, height, lambda: _read(file, width * height))


def _read_markers(data: bytes) -> _File:
    file = _File()
    position = begin = 2
    for _ in range(MAX_SEGMENTS):
        marker = MARKER.search(data, position)
        if marker is None:
            break
        # Bytes between an application's segment and the next marker belong to nothing; Pillow would not take them.
        if begin == position:
            begin = marker.start()
        code = marker[1][0]
        if code == EOI:
            file.ended = True
            file.pieces.append(data[begin : marker.start()])
            return file
        if code == SOI:
            raise corrupt()
        length = int.from_bytes(part(data, marker.end(), 2), "big")
        position = marker.end() + length
        if position > len(data):
            raise truncated()
        _note(file, code, data[marker.end() + 2 : position])
        # libjpeg reads colour from JFIF and Adobe's marker; what else an application wrote is nothing to a decoder.
        if APP0 < code < APP14 or code > APP14:
            file.pieces.append(data[begin : marker.start()])
            begin = position
    else:
        raise too_complex(f"The JPEG has more than {MAX_SEGMENTS} segments.")
    file.pieces.append(data[begin:])
    return file


def _note(file: _File, code: int, content: bytes) -> None:
    if code in OTHER_FRAMES:
        raise unsupported(OTHER_FRAMES[code])
    if code in DECODED_FRAMES:
        if file.frame:
            raise corrupt()
        file.frame, file.progressive = content, code == PROGRESSIVE
        file.missing = {identifier: np.full(64, 16, np.uint8) for identifier in content[6::3]}
    elif code == SOS:
        file.scans += 1
        if file.scans > MAX_SCANS:
            raise too_complex(f"The JPEG has more than {MAX_SCANS} scans.")
        _note_scan(file, content)
    elif code == APP1 and content.startswith(EXIF) and not file.exif:
        file.exif = content
    elif code == APP2 and content.startswith(b"ICC_PROFILE\0") and len(content) > 14:
        file.profile[content[12]] = content[14:]


def _note_scan(file: _File, content: bytes) -> None:
    """A scan brings all bits of its components; one of a progressive frame says which."""
    count = content[0] if content else 0
    if len(content) < 2 * count + 4:
        raise corrupt()
    first, last, bits = content[2 * count + 1 : 2 * count + 4] if file.progressive else (0, 63, 0)
    for identifier in content[1 : 2 * count : 2]:
        if identifier not in file.missing:
            raise corrupt()
        file.missing[identifier][first : last + 1] = bits & 15


def _read(file: _File, pixels: int) -> Raster:
    if file.scans * pixels > MAX_SCAN_PIXELS:
        raise too_complex(f"The JPEG has {file.scans} scans of {pixels} pixels, which is more work than is accepted.")
    stream = b"\xff\xd8" + b"".join(file.pieces)
    samples, mode = _decode(stream + b"\xff\xd9") if file.ended else _decode_without_end(file, stream)
    if samples.ndim == 2:
        samples = samples[..., None]
    profile = b"".join(file.profile[index] for index in sorted(file.profile)) or None
    return Raster(samples, SPACES[mode], colour=profile, orientation=exif_orientation(file.exif))


def _decode(stream: bytes) -> tuple[Samples, str]:
    with JpegImageFile(BytesIO(stream)) as image:
        return np.array(image), image.mode


def _decode_without_end(file: _File, stream: bytes) -> tuple[Samples, str]:
    """The picture of a file whose end marker is missing. Raises `RequestError` if pixels are missing too.

    libjpeg reads what follows the last scan exactly if that scan is not complete. So two continuations tell that differ
    in their first bit, one of them with the next restart marker.
    """
    if any(bits.any() for bits in file.missing.values()):
        raise truncated()
    stream = stream.rstrip(b"\xff")
    restart = bytes([0xFF, 0xD0 + len(RESTART.findall(stream, stream.rindex(b"\xff\xda"))) % 8])
    samples, mode = _decode(stream + b"\0" * 64 + b"\xff\xd9")
    other, _ = _decode(stream + b"\xaa" * 64 + restart + b"\xaa" * 64 + b"\xff\xd9")
    if not np.array_equal(samples, other):
        raise truncated()
    return samples, mode
