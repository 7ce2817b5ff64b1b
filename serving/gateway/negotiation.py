"""What a client prefers: media types (`Accept`, RFC 9110) and how to be answered (`Prefer`, RFC 7240)."""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.gateway.policy import RefusedError

# Seconds to wait for an answer that a client asks for at most.
LONGEST_WAIT = 60


@dataclass(frozen=True)
class Preference:
    """Whether a client takes a job for an answer, and the seconds for which it waits for the answer before."""

    is_asynchronous: bool
    wait: float


def choose_type(accept: str, offered: Sequence[str]) -> str:
    """The offered media type with the highest quality, the first of several; raises `RefusedError` if there is none."""
    ranges = [_range(item) for item in accept.split(",") if item.strip()] or [("*/*", 1.0)]
    quality = {kind: _quality(kind, ranges) for kind in offered}
    best = max(offered, key=lambda kind: quality[kind])
    if quality[best] <= 0:
        raise RefusedError(406, f"The answer is one of {', '.join(offered)}.", "not_acceptable", "Accept")
    return best


def read_preference(prefer: str) -> Preference:
    """The preferences that concern jobs; others, and values without meaning, are ignored as the RFC demands."""
    preferences = [part.partition(";")[0].partition("=") for part in prefer.lower().split(",")]
    values = {name.strip(): value.strip().strip('"') for name, _, value in reversed(preferences)}
    wait = values.get("wait", "")
    seconds = min(int(wait), LONGEST_WAIT) if wait.isascii() and wait.isdigit() and len(wait) < 6 else 0
    return Preference("respond-async" in values, seconds)


def _range(item: str) -> tuple[str, float]:
    """A media range and its quality. Other parameters are ignored."""
    kind, *parameters = (part.strip().lower() for part in item.split(";"))
    texts = [value for name, _, value in (part.partition("=") for part in parameters) if name.strip() == "q"]
    try:
        return kind, min(float(texts[0]), 1.0) if texts else 1.0
    except ValueError:
        return kind, 0.0


def _quality(kind: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The quality of the most specific range that holds a type."""
    for wanted in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        found = [quality for name, quality in ranges if name == wanted]
        if found:
            return max(found)
    return 0.0
