"""One request's fields to a typed value, or one typed error."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handler.errors import RequestError
from handler.explain.attribution import Parameter
from handler.explain.registry import DEFAULT_METHOD, METHODS
from handler.image import ImageLimits, decode_image
from handler.tissue import CODES, NUM_CLASSES

IMAGE_FIELDS = ("data", "body")
COMMON_OPTIONS = ("target", "return")
PARAMETERS = {name for method in METHODS.values() for name in method.parameters}
OPTIONS = {"explain", "method", *COMMON_OPTIONS, *PARAMETERS}


@dataclass(frozen=True)
class RawRequest:
    """A request as a server hands it over: fields from query, form and body, and whether the verb was explain."""

    fields: Mapping[str, Any]
    explain: bool = False


@dataclass(frozen=True)
class ExplanationRequest:
    """One wanted explanation; `target` None means the predicted class. `parameters` are sorted pairs."""

    method: str
    parameters: tuple[tuple[str, int | str], ...]
    target: int | None
    raw: bool


@dataclass(frozen=True)
class TileRequest:
    """A decoded image, uint8 `[H, W, 3]`, and the explanations wanted for it."""

    image: NDArray[np.uint8]
    explanations: tuple[ExplanationRequest, ...]


def parse_request(request: RawRequest, limits: ImageLimits) -> TileRequest:
    """Validate everything a request asks for; options first, because they cost nothing. Raises `RequestError`."""
    body, options = _separate(request.fields)
    explanations = _explanations(options, request.explain)
    return TileRequest(decode_image(_image_bytes(body), limits), explanations)


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
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        message = f"There is no option {unknown[0]!r}; options are {', '.join(sorted(OPTIONS))}."
        raise RequestError("option_unknown", message, unknown[0])
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
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    raise RequestError("parameter_invalid", f"{name!r} must be text or an integer.", name)


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


def _explanations(options: Mapping[str, str], verb_explain: bool) -> tuple[ExplanationRequest, ...]:
    names = options.get("method" if verb_explain else "explain", DEFAULT_METHOD if verb_explain else "")
    misplaced = "explain" if verb_explain else "method"
    if misplaced in options:
        message = "Use 'method' with /explanations and 'explain' with /predictions."
        raise RequestError("option_misplaced", message, misplaced)
    methods = [name.strip() for name in names.split(",")] if names else []
    if not methods:
        return _nothing_to_explain(options)
    field = "method" if verb_explain else "explain"
    for name in methods:
        if name not in METHODS:
            message = f"There is no method {name!r}; methods are {', '.join(METHODS)}."
            raise RequestError("method_unknown", message, field)
    if len(set(methods)) < len(methods):
        raise RequestError("parameter_invalid", "A method is named twice.", field)
    _refuse_unused(options, methods)
    target = _target(options.get("target"))
    raw = _choice("return", options.get("return", "images"), ("images", "raw")) == "raw"
    return tuple(ExplanationRequest(name, _parameters(name, options), target, raw) for name in methods)


def _nothing_to_explain(options: Mapping[str, str]) -> tuple[()]:
    for name in options:
        message = f"{name!r} has no meaning without 'explain'."
        raise RequestError("option_misplaced", message, name)
    return ()


def _refuse_unused(options: Mapping[str, str], methods: list[str]) -> None:
    used = {name for method in methods for name in METHODS[method].parameters}
    for name in sorted(set(options) & PARAMETERS - used):
        message = f"{name!r} has no meaning for {', '.join(methods)}."
        raise RequestError("option_misplaced", message, name)


def _target(value: str | None) -> int | None:
    if value is None:
        return None
    if value.upper() in CODES:
        return CODES.index(value.upper())
    if value.isascii() and value.isdigit() and len(value) < 3 and int(value) < NUM_CLASSES:
        return int(value)
    message = f"There is no class {value[:20]!r}; use 0 to {NUM_CLASSES - 1} or one of {', '.join(CODES)}."
    raise RequestError("target_invalid", message, "target")


def _parameters(method: str, options: Mapping[str, str]) -> tuple[tuple[str, int | str], ...]:
    specs = METHODS[method].parameters
    return tuple((name, _parameter(name, options.get(name), spec)) for name, spec in sorted(specs.items()))


def _parameter(name: str, value: str | None, spec: Parameter) -> int | str:
    if value is None:
        return spec.default
    if spec.choices:
        return _choice(name, value, spec.choices)
    message = f"{name!r} must be an integer from {spec.minimum} to {spec.maximum}."
    if not (value.isascii() and value.isdigit()) or len(value) > 9:
        raise RequestError("parameter_invalid", message, name)
    if not spec.minimum <= int(value) <= spec.maximum:
        raise RequestError("parameter_invalid", message, name)
    return int(value)


def _choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise RequestError("parameter_invalid", f"{name!r} must be one of {', '.join(choices)}.", name)
    return value
