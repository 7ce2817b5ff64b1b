"""One request's fields to a typed value, or one typed error."""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handler.api.errors import RequestError
from handler.api.field import Field, view
from handler.api.image import ImageLimits, decode_image
from handler.api.options import Options, parse_options

# Names under which an image may arrive; "body" is TorchServe's own for a body that is no form.
IMAGE_FIELDS = ("data", "body", "image", "file")
# No image format begins like this, so it is JSON, whatever its content type: a byte order mark, white space, a bracket.
JSON_BYTES = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*[{\[]")
JSON_TEXT = re.compile("\ufeff?[ \t\r\n]*[{\\[]")
DATA_URL = re.compile(r"\s*data:[^,]*,", re.IGNORECASE)
URL_SAFE = str.maketrans("-_", "+/")


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
    """The part of an image to classify, uint8 `[H, W, 3]`, the options of the request, the SHA-256 of the image file,
    its field of view, and notes on how it was decoded and cut."""

    image: NDArray[np.uint8]
    options: Options
    digest: str
    field: Field
    notes: tuple[str, ...] = ()


def parse_request(request: RawRequest, limits: ImageLimits) -> TileRequest:
    """Validate a request; options first, because they cost nothing. Raises `RequestError`."""
    body, fields = _separate(request.fields)
    options = parse_options(fields, request.explain)
    file = _image_bytes(body)
    image = decode_image(file, limits)
    pixels, field = view(image.pixels, options.mpp, image.scale)
    return TileRequest(pixels, options, hashlib.sha256(file).hexdigest(), field, image.notes + field.notes)


def _separate(fields: Mapping[str, Any]) -> tuple[Any, dict[str, str]]:
    """The image in the form in which it arrived, and the options as text."""
    body = _only_image(fields)
    options = {name: value for name, value in fields.items() if name not in IMAGE_FIELDS}
    if _is_json(body):
        body = _parse_json(body)
    if isinstance(body, Mapping):
        options = _merged(options, {name: value for name, value in body.items() if name != "image"})
        body = decode_base64(body.get("image"))
    return body, {name: _text(name, value) for name, value in options.items()}


def _only_image(fields: Mapping[str, Any]) -> Any:
    names = [name for name in IMAGE_FIELDS if name in fields]
    if len(names) > 1:
        message = f"The request holds several images, in {' and '.join(map(repr, names))}; send one."
        raise RequestError("image_repeated", message, names[-1])
    return fields[names[0]] if names else None


def _merged(query: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    for name in query.keys() & body.keys():
        raise repeated(name)
    return query | body


def repeated(name: str) -> RequestError:
    """The error of an option that is given more than once, in one place or in two."""
    return RequestError("option_repeated", f"{name[:40]!r} is given more than once.", name)


def _is_json(body: Any) -> bool:
    if isinstance(body, str):
        return JSON_TEXT.match(body) is not None
    return isinstance(body, bytes | bytearray) and JSON_BYTES.match(body) is not None


def _parse_json(body: str | bytes | bytearray) -> Any:
    try:
        text = body.removeprefix("\ufeff") if isinstance(body, str) else body.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise RequestError("json_invalid", "The body is not valid JSON.", "body") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name == "image" and name in fields:
            raise RequestError("image_repeated", "The JSON body has several fields 'image'; send one.", name)
        if name in fields:
            raise repeated(name)
        fields[name] = value
    return fields


def decode_base64(value: Any) -> bytes:
    """The bytes of base64 text, RFC 4648: either alphabet, with or without padding and line breaks, or a data URL.

    Raises `RequestError` for anything else."""
    if value is None:
        raise RequestError("image_missing", "The JSON body needs a field 'image'.", "image")
    if not isinstance(value, str):
        raise RequestError("base64_invalid", "'image' must be a base64 string.", "image")
    encoded = "".join(DATA_URL.sub("", value, count=1).split()).translate(URL_SAFE)
    unpadded = encoded.rstrip("=")
    if len(encoded) - len(unpadded) > 2:
        raise RequestError("base64_invalid", "'image' is not valid base64.", "image")
    try:
        return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError("base64_invalid", "'image' is not valid base64.", "image") from error


def _text(name: str, value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise RequestError("parameter_invalid", f"{name[:40]!r} is not UTF-8 text.", name) from error
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise RequestError("parameter_invalid", f"{name[:40]!r} must be text or a number.", name)


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
