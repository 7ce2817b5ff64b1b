"""Writes ICC profiles of every kind that scanners and programs embed (ICC.1:2010)."""

import struct
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

# XYZ under D50 of each primary, as columns (Bradford adaptation).
SRGB = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
ADOBE = np.array(
    [[0.6097559, 0.2052401, 0.1492240], [0.3111242, 0.6256560, 0.0632197], [0.0194811, 0.0608902, 0.7448387]]
)
P3 = np.array([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])
PROPHOTO = np.array([[0.7976749, 0.1351917, 0.0313534], [0.2880402, 0.7118741, 0.0000857], [0.0, 0.0, 0.8252100]])
D50 = np.array([0.9642, 1.0, 0.8249])


def number(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def xyz(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(number(value) for value in values)


def gamma(exponent: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(exponent * 256))


def table(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    codes = np.rint(np.asarray(values) * 65535).astype(">u2")
    return b"curv" + bytes(4) + struct.pack(">I", len(codes)) + codes.tobytes()


def parametric(function: int, *parameters: float) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", function, 0) + b"".join(number(value) for value in parameters)


SRGB_CURVE = parametric(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def profile(space: bytes, tags: dict[bytes, bytes], connection: bytes = b"XYZ ", kind: bytes = b"mntr") -> bytes:
    """A profile of version 2, or of version 4 if it has parametric curves."""
    version = 4 if any(tag.startswith(b"para") for tag in tags.values()) else 2
    tags = {b"desc": _description("a scanner", version), b"wtpt": xyz(D50), **tags}
    table = struct.pack(">I", len(tags))
    place = 128 + 4 + 12 * len(tags)
    body = b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, place + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI4s4s4s", place + len(body), b"none", version << 24, kind, space, connection)
    head += bytes(12) + b"acsp" + bytes(28) + b"".join(number(value) for value in D50)
    return head.ljust(128, b"\0") + table + body


def rgb_profile(to_xyz: NDArray[np.float64], curve: bytes) -> bytes:
    colours = {name: xyz(to_xyz[:, index]) for index, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return profile(b"RGB ", {**colours, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)})


def grey_profile(curve: bytes) -> bytes:
    return profile(b"GRAY", {b"kTRC": curve})


def tables_profile(space: bytes, channels: int, to_xyz: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> bytes:
    """A profile with a grid of CIE Lab values, as printers and some scanners have (lut16Type)."""
    steps = 17 if channels == 3 else 9
    axes = np.meshgrid(*[np.linspace(0, 1, steps)] * channels, indexing="ij")
    lab = _lab(to_xyz(np.stack(axes, axis=-1).reshape(-1, channels)))
    codes = np.clip(np.rint((lab + np.array([0, 128, 128])) * [652.8, 256, 256]), 0, 65535).astype(">u2")
    identity = struct.pack(">HH", 0, 65535)
    content = b"mft2" + bytes(4) + bytes([channels, 3, steps, 0]) + b"".join(map(number, np.eye(3).ravel()))
    content += struct.pack(">HH", 2, 2) + identity * channels + codes.tobytes() + identity * 3
    return profile(space, {b"A2B0": content}, b"Lab ", b"prtr")


def _lab(values: NDArray[np.float64]) -> NDArray[np.float64]:
    ratios = values / D50
    roots = np.where(ratios > (6 / 29) ** 3, np.cbrt(ratios), ratios * 841 / 108 + 4 / 29)
    x, y, z = roots.T
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), axis=-1)


def _description(text: str, version: int) -> bytes:
    if version == 4:
        return b"mluc" + bytes(4) + struct.pack(">II4sII", 1, 12, b"enUS", 2 * len(text), 28) + text.encode("utf-16-be")
    return b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text.encode() + bytes(1 + 4 + 4 + 2 + 1 + 67)
