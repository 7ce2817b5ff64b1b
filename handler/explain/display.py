"""How a signed map becomes one number per pixel."""

from typing import Literal

# `positive` drops evidence against the class, `magnitude` sums absolute values over channels.
Display = Literal["positive", "magnitude", "signed"]
