"""Client-side checks of responses. Reasons are fixed strings, so that reports can count them."""

import base64
import io
import math
import uuid
from dataclasses import dataclass
from typing import Any

from PIL import Image

from client import Client


@dataclass(frozen=True)
class Expected:
    """What the server says of its answers: the classes' codes in order, and the pixels of a picture's longer side."""

    codes: tuple[str, ...]
    map_side: int


def read_expected(url: str) -> Expected:
    """From `/models/pathmnist`. Raises `ServerError` of the client and requests' errors."""
    about = Client(url).about()
    return Expected(tuple(item["code"] for item in about["classes"]), about["options"]["size"]["default"])


class Ledger:
    """The first predicted class of each tile, and the number of responses of other processes that contradict it."""

    def __init__(self) -> None:
        self.conflicts = 0
        self._classes: dict[str, str] = {}
        self._unsent: dict[str, str] = {}

    def agrees(self, tile: str, code: str) -> bool:
        """Record the first class of a tile. Returns False if a later class differs."""
        if tile not in self._classes:
            self._classes[tile] = self._unsent[tile] = code
        return self._classes[tile] == code

    def take_unsent(self) -> dict[str, str]:
        """The classes recorded since the last call."""
        unsent, self._unsent = self._unsent, {}
        return unsent

    def merge(self, classes: dict[str, str]) -> int:
        """Compare another process's classes with these; returns how many contradict them."""
        conflicts = sum(not self.agrees(tile, code) for tile, code in classes.items())
        self.conflicts += conflicts
        return conflicts


def refusal(status: int, body: Any) -> str:
    """The reason of an answer other than 200: status and error code."""
    try:
        return f"{status} {body['error']['code']}"
    except (KeyError, TypeError):
        return f"{status} without an error code"


def fault(
    expected: Expected, body: Any, request_id: str | None, method: str | None, size: tuple[int, int]
) -> str | None:
    """The first fault of a 200 response to a tile of this width and height, with one method's map or none.

    Returns None if the response is correct."""
    try:
        return (
            _identity_fault(request_id)
            or _class_fault(body, expected.codes)
            or _map_fault(body, method, map_size(size, expected.map_side))
        )
    except (KeyError, TypeError, ValueError, OSError):
        return "answer is malformed"


def _identity_fault(request_id: str | None) -> str | None:
    try:
        uuid.UUID(request_id or "")
    except ValueError:
        return "request id is missing"
    return None


def _class_fault(body: Any, codes: tuple[str, ...]) -> str | None:
    shares, prediction = body["probabilities"], body["prediction"]
    if tuple(shares) != codes or codes[prediction["class_id"]] != prediction["code"]:
        return "classes are not the server's"
    if not math.isclose(sum(shares.values()), 1, abs_tol=1e-3):
        return "probabilities do not sum to 1"
    if max(shares, key=lambda code: shares[code]) != prediction["code"]:
        return "predicted class is not the most probable"
    if shares[prediction["code"]] != prediction["probability"]:
        return "predicted class has another probability"
    return None


def _map_fault(body: Any, method: str | None, drawn: tuple[int, int]) -> str | None:
    if method is None:
        return "explanation was not requested" if "explanations" in body else None
    (explanation,) = body["explanations"]
    if explanation["method"] != method:
        return "explanation is of another method"
    if explanation["target"]["code"] != body["prediction"]["code"]:
        return "explanation is of another class"
    for name in ("heatmap", "overlay"):
        if _size(explanation[name]) != drawn:
            return f"{name} has another size"
    return None


def map_size(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """Width and height of the pictures for a tile: its aspect, with this many pixels on the longer side."""
    scale = longer / max(size)
    width, height = (max(1, round(side * scale)) for side in size)
    return width, height


def _size(encoded: str) -> tuple[int, int]:
    """Width and height from a picture's header. Decoding all pixels would load the client's machine."""
    with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True))) as picture:
        return picture.size
