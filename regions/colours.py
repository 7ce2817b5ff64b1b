"""The colours of the tissues in maps: Paul Tol's "muted" scheme, which differs for every kind of colour blindness."""

from handler.classes import CODES

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "ADI": (221, 204, 119),
    "BACK": (200, 200, 200),
    "DEB": (153, 153, 51),
    "LYM": (51, 34, 136),
    "MUC": (136, 204, 238),
    "MUS": (68, 170, 153),
    "NORM": (17, 119, 51),
    "STR": (170, 68, 153),
    "TUM": (136, 34, 85),
}
ABSTAINED: Colour = (110, 110, 110)
BY_CLASS_ID = tuple(COLOURS[code] for code in CODES)


def hex_of(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
