"""Samples of any colour encoding to sRGB (IEC 61966-2-1), by way of CIE XYZ under D50, as ICC profiles do it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

# Unsigned, of 8 or 16 bits.
Samples = NDArray[np.unsignedinteger]
Floats = NDArray[np.floating]
# Samples in [0, 1] to light in [0, 1].
Curve = Callable[[Floats], Floats]
# Pixels that are converted at a time, so that intermediate arrays stay small.
BLOCK = 1 << 18
# CIE xy of the white points and of sRGB's primaries.
D50 = (0.34567, 0.3585)
D65 = (0.3127, 0.329)
SRGB_PRIMARIES = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
# Cone responses of the Bradford adaptation (ICC.1:2010, annex E).
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
# An encoding this close to sRGB is sRGB: half a grey level of 255.
SAME_CURVE = 0.5 / 255
SAME_MATRIX = 0.002
XY = Sequence[float]


@dataclass(frozen=True)
class Encoding:
    """What RGB samples mean: a curve to light for each channel, and a matrix `[3, 3]` from light to XYZ under D50."""

    name: str
    curves: tuple[Curve, Curve, Curve]
    to_xyz: NDArray[np.float64]

    def light(self, levels: int) -> NDArray[np.float32]:
        """The curves at equally spaced samples, `[3, levels]`."""
        samples = np.linspace(0, 1, levels)
        # A damaged profile may hold any parameters.
        with np.errstate(all="ignore"):
            curves = np.stack([curve(samples) for curve in self.curves])
        return np.clip(np.nan_to_num(curves), 0, 1).astype(np.float32)

    def is_srgb(self) -> bool:
        same_curves = np.abs(srgb_encode(self.light(256)) - np.linspace(0, 1, 256)).max() < SAME_CURVE
        return bool(same_curves and np.abs(xyz_to_srgb() @ self.to_xyz - np.eye(3)).max() < SAME_MATRIX)

    def to_srgb(self, samples: Samples) -> NDArray[np.uint8]:
        """Grey or RGB samples `[H, W, C]` to sRGB `[H, W, 3]`. Colours outside sRGB are clipped."""
        tables = self.light(np.iinfo(samples.dtype).max + 1)
        matrix = (xyz_to_srgb() @ self.to_xyz).T.astype(np.float32)
        pixels = np.empty((*samples.shape[:2], 3), np.uint8)
        for rows in blocks(samples):
            channels = np.broadcast_to(samples[rows], pixels[rows].shape)
            light = np.stack([table[channels[..., index]] for index, table in enumerate(tables)], axis=-1)
            pixels[rows] = _quantise(light @ matrix)
        return pixels


# How a file says what its samples mean: an encoding, the bytes of an ICC profile, or nothing, which is sRGB.
Colour = Encoding | bytes | None


def srgb_encode(light: Floats) -> Floats:
    """Light in [0, 1] to sRGB in [0, 1]."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def srgb_decode(values: Floats) -> Floats:
    """sRGB in [0, 1] to light in [0, 1]."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def power(exponent: float) -> Curve:
    return lambda values: values**exponent


def matrix_of(white: XY, red: XY, green: XY, blue: XY) -> NDArray[np.float64]:
    """Light in [0, 1] to XYZ under D50, from chromaticities. Raises `ValueError` if they describe no colours."""
    if min(y for _, y in (white, red, green, blue)) <= 0:
        raise ValueError("chromaticities without light")
    columns = np.stack([_xyz(xy) for xy in (red, green, blue)], axis=1)
    try:
        to_xyz = columns * np.linalg.solve(columns, _xyz(white))
    except np.linalg.LinAlgError as error:
        raise ValueError("chromaticities on one line") from error
    cones = (BRADFORD @ _xyz(D50)) / (BRADFORD @ _xyz(white))
    adapted: NDArray[np.float64] = np.linalg.inv(BRADFORD) @ np.diag(cones) @ BRADFORD @ to_xyz
    return adapted


@cache
def xyz_to_srgb() -> NDArray[np.float64]:
    """XYZ under D50 to linear sRGB, `[3, 3]`."""
    return np.linalg.inv(matrix_of(D65, *SRGB_PRIMARIES)).astype(np.float64)


def lab_to_srgb(samples: Samples) -> NDArray[np.uint8]:
    """CIE L*a*b* under D50 to sRGB: L* uses the whole range, a* and b* are -128 to 127 with 0 at half the range."""
    half = (np.iinfo(samples.dtype).max + 1) / 2
    matrix = (xyz_to_srgb() * _xyz(D50)).T.astype(np.float32)
    pixels = np.empty(samples.shape, np.uint8)
    for rows in blocks(samples):
        lab = samples[rows].astype(np.float32)
        middle = (lab[..., 0] * (100 / np.iinfo(samples.dtype).max) + 16) / 116
        a, b = ((lab[..., channel] - half) * (128 / half) for channel in (1, 2))
        roots = np.stack([middle + a / 500, middle, middle - b / 200], axis=-1)
        xyz = np.where(roots > 6 / 29, roots**3, (roots - 4 / 29) * (108 / 841))
        pixels[rows] = _quantise(xyz @ matrix)
    return pixels


def cmyk_to_srgb(samples: Samples) -> NDArray[np.uint8]:
    """CMYK without a profile: each ink takes its share of the light, as viewers do it."""
    inks = to_8_bits(samples)
    pixels = np.empty((*inks.shape[:2], 3), np.uint8)
    for rows in blocks(inks):
        paper = 255 - inks[rows].astype(np.uint32)
        pixels[rows] = (paper[..., :3] * paper[..., 3:] + 127) // 255
    return pixels


def to_8_bits(samples: Samples) -> NDArray[np.uint8]:
    """The upper byte of 16-bit samples."""
    return (samples if samples.dtype == np.uint8 else samples >> 8).astype(np.uint8, copy=False)


def blocks(samples: Samples) -> Iterator[slice]:
    """Slices of rows that cover `[H, W, ...]`, each of about `BLOCK` pixels."""
    rows = max(1, BLOCK // max(1, samples.shape[1]))
    for start in range(0, len(samples), rows):
        yield slice(start, start + rows)


def _xyz(xy: XY) -> NDArray[np.float64]:
    x, y = xy
    return np.array([x / y, 1, (1 - x - y) / y])


@cache
def _encoded() -> NDArray[np.uint8]:
    """8-bit sRGB for 65536 levels of light. Between two of them lie at most 0.05 grey levels."""
    return np.rint(srgb_encode(np.linspace(0, 1, 65536)) * 255).astype(np.uint8)


def _quantise(light: Floats) -> NDArray[np.uint8]:
    return _encoded()[np.rint(np.clip(light, 0, 1) * 65535).astype(np.uint16)]
