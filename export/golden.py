"""The golden tile: an image and the exported model's answer, by which a running server proves itself."""

import base64
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image

from handler.model.checkpoint import Model
from handler.model.preprocess import preprocess
from training.synthetic import tile

SIDE = 56
# Of the largest logit. Another machine or engine rounds by less than this; other weights give other answers.
TOLERANCE = 0.05


def golden_answer(model: Model) -> dict[str, Any]:
    """The manifest's `golden` block: a generated tile (base64 PNG), its class, its nine logits, their tolerance."""
    pixels = tile(0, np.random.default_rng(0), SIDE)
    with torch.no_grad():
        logits = model.network(preprocess([torch.from_numpy(pixels.copy())], model.preprocessing))[0]
    png = BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    return {
        "image": base64.b64encode(png.getvalue()).decode("ascii"),
        "class_id": int(logits.argmax()),
        "logits": [round(value, 5) for value in logits.tolist()],
        "tolerance": round(TOLERANCE * float(logits.abs().max()), 5),
    }
