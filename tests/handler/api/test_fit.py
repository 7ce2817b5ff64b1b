"""What an answer says about its picture, with the shipped limits and a tile that has none of the faults."""

import json
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter

from handler.api.request import RawRequest
from handler.api.service import Service
from serving.supervisor import TILE
from tests.conftest import Pixels
from tests.support.answers import answer
from tests.support.images import Encode

FAULTS: dict[str, tuple[Callable[[Image.Image], Image.Image], str]] = {
    "blur": (lambda tile: tile.filter(ImageFilter.GaussianBlur(1.5)), "out_of_focus"),
    "JPEG": (lambda tile: Image.open(BytesIO(as_jpeg(tile))).convert("RGB"), "compressed"),
    "noise": (lambda tile: Image.fromarray(noisy(np.asarray(tile))), "noisy"),
    "grey": (lambda tile: tile.convert("L"), "colourless"),
}


def as_jpeg(tile: Image.Image) -> bytes:
    buffer = BytesIO()
    tile.save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


def noisy(tile: Pixels) -> Pixels:
    noise = np.random.default_rng(0).normal(0, 16, tile.shape)
    return np.clip(tile + noise, 0, 255).astype(np.uint8)


def test_a_faulty_picture_is_told_from_a_good_one_alone_and_in_a_batch(service: Service, encode: Encode) -> None:
    tile = Image.open(TILE).convert("RGB")
    files = [encode(tile), *(encode(fault(tile)) for fault, _ in FAULTS.values())]
    good, *faulty = (json.loads(item.body) for item in service.respond([RawRequest({"body": file}) for file in files]))
    assert (good["fit"]["verdict"], good["fit"]["reasons"]) == ("fit", [])
    for body, file, (_, reason) in zip(faulty, files[1:], FAULTS.values(), strict=True):
        assert reason in body["fit"]["reasons"]
        assert body["fit"]["verdict"] == ("doubtful" if body["in_distribution"] else "unfit")
        assert answer(service, {"body": file})["fit"] == body["fit"]
