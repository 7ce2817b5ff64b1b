"""ICC profiles (ICC.1:2010). Curves and a matrix are computed here at any depth, tables by littlecms at 8 bits."""

import struct
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from handler.api.colour import D65, SRGB_PRIMARIES, Curve, Encoding, Floats, Samples, matrix_of, power, to_8_bits

MAX_BYTES = 4 << 20
# Stands for a profile that could not be read out of its file.
UNUSABLE = b""
# Kinds of profile that describe pixels: scanner or camera, display, printer, colour space.
CLASSES = (b"scnr", b"mntr", b"prtr", b"spac")
# Pillow's mode and the number of channels.
SPACES = {b"GRAY": ("L", 1), b"RGB ": ("RGB", 3), b"CMYK": ("CMYK", 4)}
MAX_NAME = 80
# Parameters of `para` curves by their type.
PARAMETERS = (1, 3, 4, 5, 7)


class ProfileError(ValueError):
    """Why a profile cannot be used."""


@dataclass(frozen=True)
class Tables:
    """A profile that littlecms has to compute: it maps samples by tables, or has CMYK inks."""

    icc: bytes
    name: str
    space: bytes

    def to_srgb(self, samples: Samples) -> NDArray[np.uint8]:
        """`[H, W, C]` to sRGB `[H, W, 3]`, perceptually. Raises `ProfileError` if littlecms refuses the profile."""
        height, width, _ = samples.shape
        mode, _ = SPACES[self.space]
        image = Image.frombytes(mode, (width, height), np.ascontiguousarray(to_8_bits(samples)).tobytes())
        try:
            profile = ImageCms.ImageCmsProfile(BytesIO(self.icc))
            transform = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
            return np.array(transform.apply(image))
        except Exception as error:
            raise ProfileError("it is damaged") from error


def read_profile(icc: bytes, channels: int) -> Encoding | Tables:
    """A profile for pixels of 1, 3 or 4 channels; RGB's may be for grey pixels too. Raises `ProfileError`."""
    if len(icc) > MAX_BYTES:
        raise ProfileError(f"it is larger than {MAX_BYTES >> 20} MiB")
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(BytesIO(icc))).strip()
        kind, space, connection = icc[12:16], icc[16:20], icc[20:24]
        if kind not in CLASSES or space not in SPACES or SPACES[space][1] not in (channels, channels + 2):
            raise ProfileError("it is for another kind of image")
        return _parse(icc, name[:MAX_NAME], space, connection)
    except ProfileError:
        raise
    except Exception as error:
        raise ProfileError("it is damaged") from error


def _parse(icc: bytes, name: str, space: bytes, connection: bytes) -> Encoding | Tables:
    tags = _tags(icc)
    if any(tag.startswith(b"D2B") for tag in tags):
        raise ProfileError("it needs multi-process elements")
    if b"A2B0" in tags or space == b"CMYK" or connection == b"Lab ":
        return Tables(icc, name, space)
    if space == b"GRAY":
        curve = _curve(tags[b"kTRC"])
        return Encoding(name, (curve, curve, curve), matrix_of(D65, *SRGB_PRIMARIES))
    red, green, blue = (_curve(tags[tag]) for tag in (b"rTRC", b"gTRC", b"bTRC"))
    to_xyz = np.stack([_xyz(tags[tag]) for tag in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
    return Encoding(name, (red, green, blue), to_xyz)


def _tags(icc: bytes) -> dict[bytes, memoryview]:
    """The tags, which may share bytes, so nothing is copied."""
    (count,) = struct.unpack_from(">I", icc, 128)
    if count > 100:
        raise ProfileError("it has more than 100 tags")
    entries = [struct.unpack_from(">4sII", icc, 132 + 12 * index) for index in range(count)]
    return {tag: memoryview(icc)[start : start + length] for tag, start, length in entries}


def _xyz(tag: memoryview) -> NDArray[np.float64]:
    return np.frombuffer(tag, ">i4", 3, 8) / 65536


def _curve(tag: memoryview) -> Curve:
    kind = bytes(tag[:4])
    if kind == b"para":
        (function,) = struct.unpack_from(">H", tag, 8)
        return _parametric(function, (np.frombuffer(tag, ">i4", PARAMETERS[function], 12) / 65536).tolist())
    if kind != b"curv":
        raise ProfileError("it has curves of an unknown type")
    (count,) = struct.unpack_from(">I", tag, 8)
    if count == 0:
        return power(1)
    values = np.frombuffer(tag, ">u2", count, 12)
    if count == 1:
        return power(values[0] / 256)
    return lambda samples: np.interp(samples, np.linspace(0, 1, count), values / 65535)


def _parametric(function: int, values: list[float]) -> Curve:
    """`y = (a x + b)^g + e` for x from d on, and `y = c x + f` below (ICC.1:2010, 10.16)."""
    g, a, b, c, d, e, f = [*values, *[0.0] * (7 - len(values))]
    if function == 0:
        return power(g)
    if function in (1, 2):
        # No line below, but the constant that the last parameter gives.
        c, d, e, f = 0.0, -b / a, c, c

    def curve(samples: Floats) -> Floats:
        return np.where(samples >= d, np.maximum(a * samples + b, 0) ** g + e, c * samples + f)

    return curve
