"""TIFF 6.0 and BigTIFF: which page is the picture, and what its samples mean."""

import re

import numpy as np
from numpy.typing import NDArray

from handler.api.colour import Samples, blocks
from handler.api.formats.directory import Directory, directories
from handler.api.formats.picture import Picture, Raster, Space, corrupt, several_pictures, unsupported
from handler.api.formats.tiff_layout import (
    ASSOCIATED,
    CHANNELS,
    CIELAB,
    ICCLAB,
    INDEXED,
    JPEG,
    PHOTOMETRIC,
    RGB,
    SEPARATED,
    UNSTATED,
    WHITE_IS_ZERO,
    YCBCR,
    Layout,
    read_layout,
)
from handler.api.formats.tiff_scale import DESCRIPTION, stated_scale
from handler.api.formats.tiff_segments import read_samples

SUBFILE, OLD_SUBFILE, COLOUR_MAP, COEFFICIENTS, BLACK_WHITE, ICC_PROFILE = 254, 255, 320, 529, 532, 34675
# ImageJ and tifffile may write a stack behind one page, and say so in its description.
MAX_DESCRIPTION = 1000
STACK = re.compile(
    rb'ImageJ=.*?\nimages=(?P<imagej>\d{1,9})|\{"shape": \[(?P<tifffile>\d{1,9}),.*"truncated": true', re.DOTALL
)
# Bits of SUBFILE: a reduced copy, a transparency mask. OLD_SUBFILE 2 is a reduced copy too.
SECONDARY = 0b101
SPACES: dict[int, Space] = {SEPARATED: "CMYK", CIELAB: "Lab", ICCLAB: "Lab", RGB: "RGB", INDEXED: "RGB", YCBCR: "RGB"}
# ITU-R BT.601, and the codes of black and white for each channel of full-range YCbCr.
BT601 = [0.299, 0.587, 0.114]
FULL_RANGE = [0, 255, 128, 255, 128, 255]


def open_tiff(data: bytes) -> Picture:
    """Read the tags of all pages."""
    page = _picture_page(list(directories(data)))
    layout = read_layout(page)
    return Picture(layout.width, layout.height, lambda: _read(page, layout), stated_scale(page))


def _picture_page(pages: list[Directory]) -> Directory:
    """The one page in full resolution. Reduced copies and transparency masks are not pictures of their own."""
    full = [page for page in pages if not page.number(SUBFILE, 0) & SECONDARY and page.number(OLD_SUBFILE, 1) != 2]
    if not pages:
        raise corrupt()
    stack = STACK.match(pages[0].values(DESCRIPTION, MAX_DESCRIPTION).tobytes())
    count = int(stack["imagej"] or stack["tifffile"]) if stack else len(full)
    if count > 1:
        grey = all(page.number(CHANNELS, 1) == 1 and page.number(PHOTOMETRIC, RGB) < RGB for page in full)
        kind = "pages of one channel each" if grey else "pages"
        raise several_pictures(f"The TIFF holds {count} {kind}. Send one page with all channels of one picture.")
    return (full or pages)[0]


def _read(page: Directory, layout: Layout) -> Raster:
    samples = read_samples(page, layout)
    alpha = _alpha(samples, layout)
    samples = samples[..., : layout.colours] if layout.subsampling == (1, 1) else samples
    if layout.photometric == YCBCR and layout.compression != JPEG:
        samples = _from_ycbcr(samples, page, layout)
    elif layout.photometric == INDEXED:
        samples = _through_map(samples, page, layout)
    else:
        samples = _stretch(samples, layout.top)
    if layout.photometric == WHITE_IS_ZERO:
        samples = ~samples
    if layout.photometric == CIELAB:
        # a* and b* are signed.
        samples = samples ^ np.array([0, *2 * [1 << layout.bits - 1]], samples.dtype)
    if alpha is not None and ASSOCIATED in layout.extra:
        samples = _divide(samples, alpha)
    profile = page.values(ICC_PROFILE).tobytes() or None
    return Raster(samples, SPACES.get(layout.photometric, "grey"), alpha, profile, layout.orientation)


def _alpha(samples: Samples, layout: Layout) -> Samples | None:
    for channel, kind in enumerate(layout.extra, start=layout.colours):
        if kind != UNSTATED:
            return _stretch(samples[..., channel], layout.top)
    return None


def _stretch(samples: Samples, top: int) -> Samples:
    """Samples of 0 to `top` over the whole range of 8 bits, or of 16 if `top` needs more than 8."""
    dtype = np.uint8 if top < 256 else np.uint16
    full = np.iinfo(dtype).max
    if samples.max(initial=0) > top:
        raise unsupported(f"A TIFF with samples above its MaxSampleValue of {top}")
    if top == full:
        return samples.astype(dtype, copy=False)
    stretched: Samples = np.rint(np.linspace(0, full, top + 1)).astype(dtype)
    return stretched[samples]


def _divide(samples: Samples, alpha: Samples) -> Samples:
    """Colours that were multiplied by alpha, as they were before."""
    top = np.iinfo(samples.dtype).max
    divided = np.empty_like(samples)
    for rows in blocks(samples):
        opacity = np.maximum(alpha[rows, :, None], 1).astype(np.float32) / np.iinfo(alpha.dtype).max
        divided[rows] = np.rint(np.minimum(samples[rows] / opacity, top)).astype(samples.dtype)
    return divided


def _through_map(indices: Samples, page: Directory, layout: Layout) -> Samples:
    """Indices to RGB. The map has 16 bits; some programs write 8, which shows in its largest entry."""
    entries = page.values(COLOUR_MAP, 3 << layout.bits)
    if len(entries) < 3 << layout.bits:
        raise corrupt()
    colours = entries.astype(np.uint16).reshape(3, -1).T
    if colours.max() < 256:
        colours = colours * np.uint16(257)
    rgb: NDArray[np.uint16] = colours[indices[..., 0]]
    return rgb


def _from_ycbcr(cells: Samples, page: Directory, layout: Layout) -> Samples:
    """Cells `[H / v, W / h, h v + 2]`, luma and one pair of differences, to RGB `[H, W, 3]` (TIFF 6.0, section 21)."""
    horizontal, vertical = layout.subsampling
    lines, columns, _ = cells.shape
    luma = cells[..., :-2].reshape(lines, columns, vertical, horizontal).swapaxes(1, 2)
    luma = luma.reshape(lines * vertical, columns * horizontal)[: layout.height, : layout.width]
    differences = cells[..., -2:].repeat(vertical, axis=0).repeat(horizontal, axis=1)[: layout.height, : layout.width]
    red, green, blue = _ratios(page, COEFFICIENTS) or BT601
    black, white = np.array(_ratios(page, BLACK_WHITE) or FULL_RANGE, np.float32).reshape(3, 2).T
    scale = np.array([255, 127, 127], np.float32) / (white - black)
    rgb = np.empty((layout.height, layout.width, 3), np.uint8)
    for rows in blocks(rgb):
        y, cb, cr = np.moveaxis((np.dstack((luma[rows], differences[rows])) - black) * scale, -1, 0)
        r, b = y + cr * (2 - 2 * red), y + cb * (2 - 2 * blue)
        g = (y - red * r - blue * b) / green
        rgb[rows] = np.rint(np.clip(np.stack((r, g, b), axis=-1), 0, 255))
    return rgb


def _ratios(page: Directory, tag: int) -> list[float]:
    """Rational numbers. Raises `RequestError` for a division by 0."""
    values = page.values(tag, len(FULL_RANGE)).astype(np.float64)
    if values.ndim == 2:
        if not values[:, 1].all():
            raise corrupt()
        values = values[:, 0] / values[:, 1]
    return values.tolist()
