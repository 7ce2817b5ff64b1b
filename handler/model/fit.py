"""Is an image fit to be judged? Focus, noise, compression, exposure and tissue, measured in what the network sees.

Everything is measured in the canonical tile, because what the reduction removes costs no accuracy: blur of one pixel
does harm at 28 pixels and none at 224, and so do the blocks of a JPEG file. `evaluation.fit` chooses the limits on
validation tiles and says what they flag.

NumPy and Pillow alone. All sums are of whole numbers, which float64 holds exactly, so a tile has the same figures alone
and among others.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handler.classes import CODES
from handler.model.prediction import FitLimits, Prediction

Verdict = Literal["fit", "doubtful", "unfit"]
Numbers = NDArray[np.float64]
# Sides of the squares in which JPEG stores brightness, and in which it stores colour at half the resolution.
BLOCK, CELL = 8, 2
# A flat tile has no detail to compare; these amounts, far below one grey level, keep its ratios at 1.
FLAT_FOCUS, FLAT_BLOCKS, FLAT_CELLS = 8.0, 2.0, 0.2
# The brightest value that scanners of this data set leave to glass, and the contrast of channels that glass lacks.
CLIPPED, COLOURED = 254, 25
BACKGROUND = CODES.index("BACK")
VERDICTS = ("fit", "doubtful", "unfit")
# What may be wrong with the pixels, in the order of their figures.
PIXEL_REASONS = (
    "out_of_focus",
    "noisy",
    "compressed",
    "overexposed",
    "underexposed",
    "colourless",
    "little_tissue",
)
STRANGE = "unlike_training"
REASONS = (*PIXEL_REASONS, STRANGE)


@dataclass(frozen=True)
class Quality:
    """What the pixels of a tile say about the picture.

    `focus` is how much neighbours differ, relative to pixels two apart (mean squares of brightness): about 0.25 for a
    smooth picture, 0.5 for a sharp one, 1 for noise. `noise` is the standard deviation of noise in R - 2G + B by
    Immerkaer's mask (doi 10.1006/cviu.1996.0060), in grey levels of one channel. `blocks` and `chroma` are how much
    neighbours differ across the edges of JPEG's blocks of 8 pixels in brightness, and of its cells of 2 in colour,
    relative to neighbours within them: about 1 without JPEG. In [0, 1]: `clipped` is the share of coloured pixels with
    a channel at its end, `peak` the brightest channel, `saturation` the mean difference of a pixel's highest and lowest
    channel relative to the mean highest, and `tissue` the share of coloured pixels.
    """

    focus: float
    noise: float
    blocks: float
    chroma: float
    clipped: float
    peak: float
    saturation: float
    tissue: float


@dataclass(frozen=True)
class Fit:
    """Whether a tile is fit to be judged, and why not.

    `fit` has no reason. `doubtful` has one. `unfit` has one in its pixels and is unlike the training tiles besides.
    None means that the model has no limits.
    """

    verdict: Verdict | None
    reasons: tuple[str, ...]
    quality: Quality

    def to_json(self) -> dict[str, Any]:
        """The answer's `fit`."""
        figures = {name: round(value, 4) for name, value in asdict(self.quality).items()}
        return {"verdict": self.verdict, "reasons": list(self.reasons), **figures}


def reduced(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """An RGB image `[H, W, 3]` as a tile `[S, S, 3]`, by Pillow's bilinear `resize`, as MedMNIST did it."""
    if pixels.shape[:2] == (size, size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))


def measure(tiles: NDArray[np.uint8]) -> list[Quality]:
    """The figures of canonical tiles `[N, S, S, 3]`, S at least 9."""
    red, green, blue = np.ascontiguousarray(np.moveaxis(tiles, -1, 0), dtype=np.float64)
    brightness, colour = red + 2 * green + blue, red - green
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    contrast = high - low
    coloured = contrast > COLOURED
    clipped = coloured & ((high >= CLIPPED) | (low == 0))
    figures = (
        _focus(brightness),
        _noise(colour - green + blue),
        _grid(brightness, BLOCK, FLAT_BLOCKS),
        _grid(colour, CELL, FLAT_CELLS),
        _mean(clipped),
        high.max(axis=(1, 2)) / 255,
        _mean(contrast) / np.maximum(_mean(high), 1),
        _mean(coloured),
    )
    return [Quality(*row) for row in np.stack(figures, axis=-1).tolist()]


def fit_of(quality: Quality, prediction: Prediction, limits: FitLimits | None) -> Fit:
    """The verdict on one tile from its figures and its prediction."""
    if limits is None:
        return Fit(None, (), quality)
    pixels = _reasons(quality, limits, prediction.tissue.class_id)
    strange = (STRANGE,) if _ood_ratio(prediction) > limits.ood_ratio else ()
    if pixels and prediction.in_distribution is False:
        return Fit("unfit", pixels + strange, quality)
    return Fit("doubtful" if pixels or strange else "fit", pixels + strange, quality)


def _reasons(quality: Quality, limits: FitLimits, class_id: int) -> tuple[str, ...]:
    """The figures beyond their limits, as reasons."""
    beyond = (
        quality.focus < limits.focus,
        quality.noise > limits.noise,
        quality.blocks > limits.blocks or quality.chroma > limits.chroma,
        quality.clipped > limits.clipped,
        quality.peak < limits.peak,
        quality.saturation < limits.saturation,
        # Glass is no fault of a tile that is called glass.
        quality.tissue < limits.tissue and class_id != BACKGROUND,
    )
    return tuple(reason for reason, is_beyond in zip(PIXEL_REASONS, beyond, strict=True) if is_beyond)


def _ood_ratio(prediction: Prediction) -> float:
    if prediction.ood_score is None or prediction.ood_threshold is None:
        return 0.0
    return prediction.ood_score / prediction.ood_threshold


def _focus(values: Numbers) -> Numbers:
    return (_mean_square(values, 1) + FLAT_FOCUS) / (_mean_square(values, 2) + FLAT_FOCUS)


def _mean_square(values: Numbers, distance: int) -> Numbers:
    """The mean square of differences at a distance, along rows and down columns, summed: `[N]`."""
    along = values[:, :, distance:] - values[:, :, :-distance]
    down = values[:, distance:] - values[:, :-distance]
    return _mean(along * along) + _mean(down * down)


def _noise(values: Numbers) -> Numbers:
    """By the mask [[1, -2, 1], [-2, 4, -2], [1, -2, 1]], which planes and straight edges do not answer."""
    bent = values[:, 2:] - 2 * values[:, 1:-1] + values[:, :-2]
    bent = bent[:, :, 2:] - 2 * bent[:, :, 1:-1] + bent[:, :, :-2]
    # The weights of R - 2G + B have the length sqrt(6), those of the mask 6.
    return np.sqrt(np.pi / 12) / 6 * _mean(np.abs(bent))


def _grid(values: Numbers, period: int, flat: float) -> Numbers:
    """How much neighbours differ across the lines of a grid, relative to within its squares: `[N]`."""
    along = np.abs(values[:, :, 1:] - values[:, :, :-1]).sum(axis=1)
    down = np.abs(values[:, 1:] - values[:, :-1]).sum(axis=2)
    steps = along + down
    across = steps[:, period - 1 :: period]
    outer, lines = across.sum(axis=1), across.shape[1]
    inner = steps.sum(axis=1) - outer
    size = values.shape[1]
    return (outer / (lines * size) + flat) / (inner / ((steps.shape[1] - lines) * size) + flat)


def _mean(values: NDArray[Any]) -> Numbers:
    """Of each tile: `[N]`."""
    return values.reshape(len(values), -1).sum(axis=1) / (values.shape[1] * values.shape[2])
