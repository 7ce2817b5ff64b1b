"""The size of a pixel, from the numbers for its two sides."""

import math
from collections.abc import Sequence

from handler.api.formats.picture import Scale, ScaleSource

# Sides that differ by more are no square pixel, and two numbers that contradict each other name no size.
SAME_SIDES = 0.01


def scale_of(sides: Sequence[float], source: ScaleSource) -> Scale | None:
    """The scale of a square pixel with these sides in micrometres, width and height; None for anything else."""
    if len(sides) != 2 or not all(math.isfinite(side) and side > 0 for side in sides):
        return None
    if max(sides) > min(sides) * (1 + SAME_SIDES):
        return None
    return Scale(float(sides[0]), source)
