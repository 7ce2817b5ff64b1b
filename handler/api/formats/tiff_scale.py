"""The size of a pixel as a TIFF states it: in OME-XML, in ImageJ's description, or by the resolution tags."""

import re
from html import unescape

from handler.api.formats.directory import Directory
from handler.api.formats.picture import Scale
from handler.api.formats.scale import scale_of

DESCRIPTION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 270, 282, 283, 296
# Characters of a description that are read: OME's first `Pixels` comes after what names the microscope.
MAX_TEXT = 65536
# Micrometres of the unit of a resolution: an inch, which is the default, and a centimetre.
INCH = 2
UNITS = {INCH: 25_400.0, 3: 10_000.0}
# ImageJ counts pixels per unit of its own, which its description names.
IMAGEJ_MICRON = re.compile(r"ImageJ=.*?^unit=(?:micron|um|\xb5m|\u03bcm|\\u00B5m)$", re.DOTALL | re.MULTILINE)
# Attributes are looked up by name; an XML parser would also expand entities.
OME_PIXELS = re.compile(r"<(?:\w+:)?OME\b.*?<(?:\w+:)?Pixels\b([^>]*)>", re.DOTALL)
OME_UNITS = {"\xb5m": 1.0, "\u03bcm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}


def stated_scale(page: Directory) -> Scale | None:
    """The scale of a page. None if it states none, or if what it states is damaged."""
    try:
        text = page.values(DESCRIPTION, MAX_TEXT).tobytes().decode("utf-8", "replace")
        pixels = OME_PIXELS.search(text)
        return (_from_ome(pixels[1]) if pixels else None) or _from_tags(page, text)
    except Exception:
        return None


def _from_ome(attributes: str) -> Scale | None:
    """`PhysicalSizeX` and `PhysicalSizeY`, in micrometres unless a unit is named (OME schema 2016-06)."""
    return scale_of([_ome_side(attributes, side) for side in "XY"], "ome")


def _ome_side(attributes: str, side: str) -> float:
    unit = re.search(rf'\bPhysicalSize{side}Unit\s*=\s*["\']([^"\']*)', attributes)
    size = re.search(rf'\bPhysicalSize{side}\s*=\s*["\']([^"\']*)', attributes)
    return float(size[1]) * OME_UNITS[unescape(unit[1]) if unit else "um"] if size else 0.0


def _from_tags(page: Directory, text: str) -> Scale | None:
    unit = UNITS.get(page.number(RESOLUTION_UNIT, INCH))
    if IMAGEJ_MICRON.match(text):
        unit = 1.0
    if unit is None:
        return None
    # Each is a rational number.
    rates = [page.values(tag, 1).astype(float).reshape(-1) for tag in (X_RESOLUTION, Y_RESOLUTION)]
    return scale_of([unit * rate[1] / rate[0] for rate in rates if rate.size == 2 and rate.all()], "tiff")
