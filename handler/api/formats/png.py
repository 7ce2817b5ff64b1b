"""PNG (W3C, third edition): the chunks are read here, the pixels are decoded by Pillow."""

import struct
import zlib
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from handler.api.colour import D65, SRGB_PRIMARIES, Colour, Curve, Encoding, Samples, matrix_of, power, srgb_decode
from handler.api.formats.directory import exif_orientation
from handler.api.formats.picture import (
    Picture,
    Raster,
    Scale,
    Space,
    corrupt,
    part,
    several_pictures,
    too_complex,
    truncated,
    unsupported,
)
from handler.api.formats.scale import scale_of
from handler.api.icc import MAX_BYTES, UNUSABLE

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
MAX_CHUNKS = 20_000
# What 1/2.2 is written as, with room for rounding. The specification means sRGB by it.
SRGB_GAMMA = range(45_000, 46_000)
# cICP (ITU-T H.273): primaries by their code, and the transfer functions of sRGB.
CICP_PRIMARIES = {
    1: SRGB_PRIMARIES,
    9: ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046)),
    12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
}
CICP_TRANSFERS = {4: power(2.2), 8: power(1), 13: srgb_decode}
# pHYs states pixels per metre if its unit is 1, otherwise only the shape of a pixel.
METRE, MICROMETRES_PER_METRE = 1, 1e6
# Exponents that describe a picture; libpng ignores others too.
GAMMAS = range(10_000, 1_000_001)


class _Chunks:
    """The chunks of a file: the first of each kind by name, and the pixels as a file of their own."""

    def __init__(self, data: bytes) -> None:
        self.first: dict[bytes, bytes] = {}
        pixels: list[bytes] = []
        position = len(SIGNATURE)
        for _ in range(MAX_CHUNKS):
            if position >= len(data):
                break
            length, name = struct.unpack(">I4s", part(data, position, 8))
            chunk = part(data, position, length + 12)
            position += length + 12
            if name == b"IEND":
                break
            self.first.setdefault(name, chunk[8:-4])
            # Nothing else reaches the decoder: no text, however large, and no colour, which is converted here.
            if name in (b"IHDR", b"PLTE", b"IDAT"):
                pixels.append(chunk)
        else:
            raise too_complex(f"The PNG has more than {MAX_CHUNKS} chunks.")
        self.file = b"".join((SIGNATURE, *pixels, END))


def open_png(data: bytes) -> Picture:
    """Read all chunks but no pixels."""
    chunks = _Chunks(data)
    first = chunks.first
    if b"CgBI" in first:
        raise unsupported("Apple's variant of PNG (CgBI)")
    if b"IHDR" not in first or b"IDAT" not in first:
        raise truncated()
    width, height, depth, colour_type = struct.unpack(">IIBB", first[b"IHDR"][:10])
    if depth not in DEPTHS.get(colour_type, ()):
        raise corrupt()
    frames = int.from_bytes(first.get(b"acTL", b"")[:4], "big")
    if frames > 1:
        raise several_pictures(f"The PNG is an animation of {frames} frames. Send one still image.")
    return Picture(width, height, lambda: _read(chunks, depth, colour_type), _scale(first.get(b"pHYs", b"")))


def _scale(physical: bytes) -> Scale | None:
    if len(physical) != 9 or physical[8] != METRE:
        return None
    per_metre = struct.unpack(">II", physical[:8])
    return scale_of([MICROMETRES_PER_METRE / count for count in per_metre if count], "png")


def _read(chunks: _Chunks, depth: int, colour_type: int) -> Raster:
    first = chunks.first
    samples = _decode_16_bits(chunks.file, colour_type) if depth == 16 else _decode(chunks.file)
    alpha: Samples | None = None
    space: Space = "grey" if colour_type in (GREY, GREY_ALPHA) else "RGB"
    if colour_type == PALETTE:
        samples, alpha = _through_palette(samples, first.get(b"PLTE", b""), first.get(b"tRNS"))
    elif colour_type in (GREY_ALPHA, RGB_ALPHA):
        samples, alpha = samples[..., :-1], samples[..., -1]
    elif b"tRNS" in first:
        alpha = _by_key(samples, depth, first[b"tRNS"])
    return Raster(samples, space, alpha, _colour(first), exif_orientation(first.get(b"eXIf")))


def _decode(file: bytes, raw_mode: str | None = None) -> Samples:
    """Samples `[H, W, C]` as Pillow reads them: grey of up to 8 bits in the range 0 to 255, palettes as indices."""
    with PngImageFile(BytesIO(file)) as image:
        if raw_mode:
            image.tile = [image.tile[0]._replace(args=raw_mode)]
        samples = np.array(image)
    if samples.dtype == np.bool_:
        samples = samples * np.uint8(255)
    return samples if samples.ndim == 3 else samples[..., None]


def _decode_16_bits(file: bytes, colour_type: int) -> NDArray[np.uint16]:
    """Samples of 16 bits `[H, W, C]`.

    Pillow keeps the upper bytes of colour samples alone, unless it is told how to read the bytes of a pixel.
    """
    if colour_type == GREY:
        return _decode(file).astype(np.uint16)
    if colour_type == GREY_ALPHA:
        return _decode(file, "RGBA").view(">u2").astype(np.uint16)
    mode = "RGB" if colour_type == RGB else "RGBA"
    upper, lower = _decode(file, f"{mode};16B"), _decode(file, f"{mode};16L")
    return upper.astype(np.uint16) * np.uint16(256) + lower.astype(np.uint16)


def _through_palette(
    indices: Samples, colours: bytes, opacities: bytes | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """RGB and alpha. Colours that the palette lacks are black, opacities that it lacks are full."""
    palette = np.zeros((256, 3), np.uint8)
    entries = np.frombuffer(colours[: len(colours) // 3 * 3][:768], np.uint8).reshape(-1, 3)
    palette[: len(entries)] = entries
    rgb = palette[indices[..., 0]]
    if opacities is None:
        return rgb, None
    alpha = np.full(256, 255, np.uint8)
    alpha[: min(len(opacities), 256)] = np.frombuffer(opacities[:256], np.uint8)
    return rgb, alpha[indices[..., 0]]


def _by_key(samples: Samples, depth: int, transparent: bytes) -> Samples:
    """Alpha where one colour is transparent, compared at the file's own depth; of the key only its low bits count."""
    channels = samples.shape[2]
    if len(transparent) < 2 * channels:
        raise corrupt()
    key = np.frombuffer(transparent, ">u2", channels) & ((1 << depth) - 1)
    if depth < 8:
        key = key * (255 // ((1 << depth) - 1))
    opaque = (samples != key).any(axis=2)
    return opaque * samples.dtype.type(np.iinfo(samples.dtype).max)


def _colour(first: dict[bytes, bytes]) -> Colour:
    """What the samples mean, by the chunk that the specification prefers: cICP, iCCP, sRGB, then gAMA and cHRM."""
    if b"cICP" in first:
        return _by_code_points(first[b"cICP"])
    if b"iCCP" in first:
        return _profile(first[b"iCCP"])
    if b"sRGB" in first or not (b"gAMA" in first or b"cHRM" in first):
        return None
    return _by_gamma(first.get(b"gAMA"), first.get(b"cHRM"))


def _by_code_points(code_points: bytes) -> Colour:
    primaries, transfer, matrix, full_range = code_points[:4]
    if primaries not in CICP_PRIMARIES or transfer not in CICP_TRANSFERS or matrix != 0 or full_range != 1:
        raise unsupported(f"A PNG in the colour space {primaries}, {transfer}, {matrix}, {full_range} (cICP)")
    curve = CICP_TRANSFERS[transfer]
    return Encoding(f"cICP {primaries}/{transfer}", (curve, curve, curve), matrix_of(D65, *CICP_PRIMARIES[primaries]))


def _profile(content: bytes) -> bytes:
    """An ICC profile, decompressed no further than one can be used. `UNUSABLE` if its compression is damaged."""
    compressed = content.partition(b"\0")[2][1:]
    try:
        return zlib.decompressobj().decompress(compressed, MAX_BYTES + 1)
    except zlib.error:
        return UNUSABLE


def _by_gamma(gamma: bytes | None, chromaticities: bytes | None) -> Colour:
    """gAMA and cHRM, the missing one as in sRGB. `UNUSABLE` if they describe no colours."""
    name = []
    curve: Curve = srgb_decode
    to_xyz = matrix_of(D65, *SRGB_PRIMARIES)
    try:
        if gamma is not None:
            exponent = int.from_bytes(gamma[:4], "big")
            name.append(f"gamma {exponent / 100_000:g}")
            if exponent not in GAMMAS:
                return UNUSABLE
            if exponent not in SRGB_GAMMA:
                curve = power(100_000 / exponent)
        if chromaticities is not None:
            name.append("chromaticities")
            white, red, green, blue = (np.frombuffer(chromaticities, ">u4", 8) / 100_000).reshape(4, 2).tolist()
            to_xyz = matrix_of(white, red, green, blue)
    except ValueError:
        return UNUSABLE
    return Encoding(" and ".join(name), (curve, curve, curve), to_xyz)
