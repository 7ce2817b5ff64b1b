"""Ten thousand malformed requests: each is a request or one typed error, never anything else."""

import base64
import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handler.api.errors import RequestError
from handler.api.image import ImageLimits
from handler.api.options import OPTIONS
from handler.api.request import RawRequest, TileRequest, parse_request
from handler.api.service import Service
from tests.conftest import Pixels
from tests.handler.api.test_image import Encode

LIMITS = ImageLimits(max_pixels=512 * 512)
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
DAMAGED_FILES = 5000
many = settings(
    max_examples=1250, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True
)
# Values that lie close to legal ones find more than random text.
values = (
    st.text(max_size=12)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(
        ["all", "TUM", "nan", "inf", "-0", "1e400", "gradcam,", "gradcam,gradcam", "none", "\0", "٣", "1_0"]
    )
)
names = st.sampled_from(sorted(OPTIONS)) | st.text(max_size=8)
plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.just("image"), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def png(tiles: Pixels, encode: Encode) -> bytes:
    return encode(tiles[0])


def damaged(file: bytes, seed: int) -> bytes:
    """An image file with flipped bytes, a missing tail, a hole, or foreign bytes."""
    chance = np.random.default_rng(seed)
    data = bytearray(file)
    match seed % 4:
        case 0:
            for place in chance.integers(0, len(data), chance.integers(1, 20)):
                data[place] ^= int(chance.integers(1, 256))
        case 1:
            del data[int(chance.integers(0, len(data))) :]
        case 2:
            start = int(chance.integers(0, len(data)))
            del data[start : start + int(chance.integers(1, 64))]
        case _:
            start = int(chance.integers(0, len(data)))
            data[start:start] = chance.bytes(int(chance.integers(1, 64)))
    return bytes(data)


def outcome(fields: dict[str, Any], explain: bool = False) -> TileRequest | str:
    """What a request is, or the code of its error; anything else that is raised fails the test."""
    try:
        return parse_request(RawRequest(fields, explain), LIMITS)
    except RequestError as error:
        assert 400 <= error.status < 500
        body = error.to_json()["error"]
        assert set(body) == {"code", "message", "field"}
        orjson.dumps(body)
        return error.code


def test_damaged_image_files_are_images_or_typed_errors(tiles: Pixels, encode: Encode) -> None:
    files = [encode(tile, file_format) for tile in tiles[:9] for file_format in FORMATS]
    codes = set()
    for seed in range(DAMAGED_FILES):
        found = outcome({"data": damaged(files[seed // 4 % len(files)], seed)})
        codes.add(found if isinstance(found, str) else "image")
    assert codes >= {"image", "image_truncated", "image_corrupt", "image_unreadable"}


@many
@given(
    options=st.dictionaries(names, values | values.map(str.encode) | st.binary(max_size=8), max_size=4),
    explain=st.booleans(),
)
def test_any_options_are_options_or_typed_errors(png: bytes, options: dict[str, Any], explain: bool) -> None:
    outcome({"data": png, **options}, explain)


@many
@given(text=plain_json.map(json.dumps) | st.text(max_size=40).map(lambda tail: "{" + tail), explain=st.booleans())
def test_any_json_text_is_a_request_or_a_typed_error(text: str, explain: bool) -> None:
    outcome({"body": text.encode(errors="surrogatepass")}, explain)


@many
@given(body=st.dictionaries(names | st.just("image"), plain_json, max_size=4))
def test_any_json_object_is_a_request_or_a_typed_error(png: bytes, body: dict[str, Any]) -> None:
    outcome({"body": body})
    outcome({"body": {"image": base64.b64encode(png).decode(), **body}})


@many
@given(data=st.binary(max_size=200), name=st.sampled_from(["data", "body", "image"]))
def test_any_bytes_are_a_request_or_a_typed_error(data: bytes, name: str) -> None:
    outcome({name: data})


def test_a_batch_with_damaged_files_serves_its_good_request(service: Service, png: bytes) -> None:
    (alone,) = service.respond([RawRequest({"data": png})])
    for seed in range(40):
        bad = [RawRequest({"data": damaged(png, 4 * seed + kind)}) for kind in range(4)]
        *others, good = service.respond([*bad, RawRequest({"data": png})])
        assert all(response.status < 500 for response in others)
        assert np.allclose(json.loads(good.body)["logits"], json.loads(alone.body)["logits"], atol=1e-4)
