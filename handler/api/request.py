"""One request's fields to a typed value, or one typed error."""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handler.api.errors import RequestError
from handler.api.image import ImageLimits, decode_image
from handler.api.options import Options, parse_options

IMAGE_FIELDS = ("data", "body")


@dataclass(frozen=True)
class RawRequest:
    """A request as a server hands it over: fields from query, form and body, and whether the verb was explain."""

    fields: Mapping[str, Any]
    explain: bool = False

    @property
    def verb(self) -> str:
        """The first part of the path it came by."""
        return "explanations" if self.explain else "predictions"


@dataclass(frozen=True)
class TileRequest:
    """A decoded image, uint8 `[H, W, 3]`, its options, the SHA-256 of its file, and what became of its colours."""

    image: NDArray[np.uint8]
    options: Options
    digest: str
    notes: tuple[str, ...] = ()


def parse_request(request: RawRequest, limits: ImageLimits) -> TileRequest:
    """Validate everything a request asks for; options first, because they cost nothing. Raises `RequestError`."""
    body, options = _separate(request.fields)
    wanted = parse_options(options, request.explain)
    file = _image_bytes(body)
    image = decode_image(file, limits)
    return TileRequest(image.pixels, wanted, hashlib.sha256(file).hexdigest(), image.notes)


def _separate(fields: Mapping[str, Any]) -> tuple[Any, dict[str, str]]:
    """The image in whatever form it came, and the options as text. Query and form win over a JSON body."""
    body = next((fields[name] for name in IMAGE_FIELDS if name in fields), None)
    options = {name: value for name, value in fields.items() if name not in IMAGE_FIELDS}
    if isinstance(body, str | bytes | bytearray) and body[:1] in ("{", "[", b"{", b"["):
        # No image format begins like this: JSON that came without its content type.
        body = _parse_json(body)
    if isinstance(body, Mapping):
        options = {
            **{name: value for name, value in body.items() if name != "image"},
            **options,
        }
        body = _from_base64(body.get("image"))
    return body, {name: _text(name, value) for name, value in options.items()}


def _parse_json(body: str | bytes | bytearray) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError("json_invalid", "The body is not valid JSON.", "body") from error


def _from_base64(value: Any) -> bytes:
    if value is None:
        raise RequestError("image_missing", "The JSON body needs a field 'image'.", "image")
    if not isinstance(value, str):
        raise RequestError("base64_invalid", "'image' must be a base64 string.", "image")
    encoded = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError("base64_invalid", "'image' is not valid base64.", "image") from error


def _text(name: str, value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise RequestError("parameter_invalid", f"{name!r} is not UTF-8 text.", name) from error
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise RequestError("parameter_invalid", f"{name!r} must be text or a number.", name)


def _image_bytes(body: Any) -> bytes:
    if body is None:
        raise RequestError("image_missing", "The request holds no image.", "data")
    if isinstance(body, str):
        raise RequestError("image_unreadable", "The body is text, not an image.", "data", 415)
    if not isinstance(body, bytes | bytearray):
        raise RequestError(
            "json_invalid",
            "The JSON body must be an object with a field 'image'.",
            "body",
        )
    return bytes(body)
