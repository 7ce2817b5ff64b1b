"""A signed map, and what it explains, to the JSON of an answer.

Like all that it imports, it needs no PyTorch.
"""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handler.classes import CODES


def subject_json(method: str, target: int, contrast: int | None) -> dict[str, Any]:
    """What is explained."""
    subject: dict[str, Any] = {"method": method, "target": _class_json(target)}
    if contrast is not None:
        subject["contrast"] = _class_json(contrast)
    return subject


def _class_json(class_id: int) -> dict[str, Any]:
    return {"class_id": class_id, "code": CODES[class_id]}


def map_json(values: NDArray[np.floating[Any]], dtype: str) -> dict[str, Any]:
    """The signed map. Its numbers times `scale` are in the map's unit; the scale makes half precision as fine as
    possible, so that small units do not underflow."""
    scale = float(np.abs(values).max()) or 1.0 if dtype == "float16" else 1.0
    data = np.ascontiguousarray(values / scale, "<f2" if dtype == "float16" else "<f4")
    return {
        "dtype": dtype,
        "shape": list(values.shape),
        "scale": scale,
        "range": [float(values.min()), float(values.max())],
        "data": base64_text(data.tobytes()),
    }


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
