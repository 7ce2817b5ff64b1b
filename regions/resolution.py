"""How large a pixel is, in micrometres, if a file says so in a believable way."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from regions.errors import RegionError

# Micrometres per pixel of microscopes and of regions made from them. 72 dpi, which programs write unasked, are 353.
PLAUSIBLE = (0.05, 20.0)
# Width and height of a pixel may differ by so much.
MAX_ASPECT = 1.1
# The network sees 28 pixels of 4 micrometres. A coarser image lacks what it looks at; 15 % are tolerated.
COARSEST = 4.0 * 1.15
HINT = "say how large a pixel is (mpp)"
# Micrometres per unit of TIFF's ResolutionUnit: inch and centimetre.
TIFF_UNITS = {2: 25400.0, 3: 10000.0}


@dataclass(frozen=True)
class Mpp:
    """Width and height of a pixel in micrometres."""

    x: float
    y: float


def require_mpp(stated: Mpp | None, given: float | None) -> Mpp:
    """The size of a pixel: `given` by the user, or `stated` by the file.

    Raises `RegionError`: `mpp_missing`, `mpp_implausible`, or `mpp_too_coarse`. Nothing is guessed.
    """
    mpp = stated if given is None else Mpp(given, given)
    if mpp is None:
        raise RegionError("mpp_missing", f"The file does not say how many micrometres a pixel has; {HINT}.")
    if not _is_plausible(mpp):
        low, high = PLAUSIBLE
        raise RegionError(
            "mpp_implausible",
            f"A pixel of {mpp.x:g} x {mpp.y:g} micrometres is not plausible ({low:g} to {high:g}, square); {HINT}.",
        )
    if max(mpp.x, mpp.y) > COARSEST:
        message = f"A pixel has {max(mpp.x, mpp.y):g} micrometres; at most {COARSEST:g} show what the model looks at."
        raise RegionError("mpp_too_coarse", message)
    return mpp


def _is_plausible(mpp: Mpp) -> bool:
    sides = (mpp.x, mpp.y)
    if not all(math.isfinite(side) and PLAUSIBLE[0] <= side <= PLAUSIBLE[1] for side in sides):
        return False
    return max(sides) / min(sides) <= MAX_ASPECT


def mpp_of_density(x: float, y: float, micrometres: float) -> Mpp | None:
    """From pixels per unit of so many micrometres; None for a density of zero."""
    return Mpp(micrometres / x, micrometres / y) if x > 0 and y > 0 else None


def mpp_of_tiff(x: Sequence[int] | None, y: Sequence[int] | None, unit: int | None) -> Mpp | None:
    """From TIFF's XResolution and YResolution (numerator, denominator) and ResolutionUnit."""
    if x is None or y is None or unit not in TIFF_UNITS or 0 in (x[1], y[1]):
        return None
    return mpp_of_density(x[0] / x[1], y[0] / y[1], TIFF_UNITS[unit])
