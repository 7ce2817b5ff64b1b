"""A request's query and body, in whatever shape they arrive, to one body and one set of options.

TorchServe drops repeated fields and answers malformed forms with Java's messages, so forms are read here.
"""

import base64
import binascii
import json
import logging
import re
import string
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, quote_from_bytes, urlencode

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.gateway.policy import JSON, RefusedError

FORM = "application/x-www-form-urlencoded"
OCTETS = "application/octet-stream"
# Form fields that may hold the image; `body` is TorchServe's name for it.
IMAGE_FIELDS = ("data", "image", "file", "body")
MAX_FIELDS = 64
# Images of one request.
MAX_IMAGES = 64
# Bytes of the encoded options. TorchServe takes 4096 for a request line.
MAX_OPTIONS = 3000
# Bytes of a form without files.
MAX_FORM = 16 * 1024
JSON_BODY = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*[{\[]")
# curl names everything a form that `--data-binary` sends; an image is not one.
FORM_TEXT = re.compile(rb"[!-~]*")
FORM_PART = re.compile(rb"--[^\r\n]+\r?\ncontent-disposition:", re.IGNORECASE)
# zlib's window sizes: a gzip header, a zlib header, and none.
GZIP, ZLIB, RAW = 31, 15, -15
TRANSFER_ENCODINGS: dict[bytes, Callable[[bytes], bytes]] = {
    b"binary": bytes,
    b"8bit": bytes,
    b"7bit": bytes,
    b"base64": lambda data: base64.b64decode(b"".join(data.split()), validate=True),
    b"quoted-printable": binascii.a2b_qp,
}
ENCODINGS = {"gzip": GZIP, "x-gzip": GZIP, "deflate": ZLIB}

Fields = Iterable[tuple[str, bytes]]

# Its warnings repeat the errors that clients get.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Payload:
    """The body of a request, an image file or JSON that holds one, and its options as text."""

    body: bytes
    options: dict[str, str]

    @property
    def query(self) -> str:
        """The options as a query string."""
        return urlencode(self.options, quote_via=quote)


@dataclass(frozen=True)
class Batch:
    """Several images of one request, with the same options."""

    payloads: tuple[Payload, ...]


def read_payload(query: bytes, body: bytes, content_type: bytes, content_encoding: str, limit: int) -> Payload | Batch:
    """Decompress the body, read it if it is a form, and join its fields with the query's.

    A form with several images in one field, or JSON with `images`, is a batch.

    Raises `RefusedError` if a part is malformed, given twice, or larger than `limit` bytes after decompression.
    """
    body = decompressed(body, content_encoding, limit)
    media_type = parse_options_header(content_type)[0].decode("latin-1")
    options = _options(_pairs(query), {})
    if media_type.startswith("multipart/"):
        return _form(_parts(content_type, body), options)
    if media_type == FORM and FORM_TEXT.fullmatch(body[:64]) and not JSON_BODY.match(body):
        return _form(_urlencoded(body), options)
    if media_type == JSON and body and not JSON_BODY.match(body):
        raise RefusedError(400, "The body is not a JSON object.", "json_invalid", "body")
    if FORM_PART.match(body):
        raise RefusedError(400, "The body is a form, but its Content-Type names no boundary.", "form_invalid", "body")
    options = _short(options)
    return _json_batch(body, options) or Payload(body, options)


def query_options(query: bytes) -> dict[str, str]:
    """The options of a query string. Raises `RefusedError`."""
    return _short(_options(_pairs(query), {}))


def decompressed(body: bytes, encoding: str, limit: int) -> bytes:
    """A body without its Content-Encoding. Raises `RefusedError` if it is invalid or larger than `limit` bytes."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity") or not body:
        return body
    if encoding not in ENCODINGS:
        message = f"Content-Encoding {encoding[:40]!r} is not supported; send gzip, deflate, or none."
        raise RefusedError(415, message, "encoding_unsupported", headers={"Accept-Encoding": "gzip, deflate"})
    window = ENCODINGS[encoding]
    # Some clients leave out the header of a zlib stream, whose low bits are 8.
    decompressor = zlib.decompressobj(RAW if window == ZLIB and body[0] & 0xF != 8 else window)
    try:
        content = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise RefusedError(400, f"The body is not valid {encoding}.", "encoding_invalid", "body") from error
    if len(content) > limit:
        raise RefusedError(413, f"The decompressed body has more than {limit} bytes.", field="body")
    if not decompressor.eof or decompressor.unused_data:
        raise RefusedError(400, f"The body is not one whole {encoding} stream.", "encoding_invalid", "body")
    return content


def _form(fields: Fields, options: dict[str, str]) -> Payload | Batch:
    """The images of one name, if any, and options that the query does not give too."""
    fields = list(fields)
    images = [(name, value) for name, value in fields if name in IMAGE_FIELDS]
    if len(fields) - len(images) > MAX_FIELDS:
        raise _too_many()
    names = list(dict.fromkeys(name for name, _ in images))
    if len(names) > 1:
        message = f"The form holds images in {' and '.join(map(repr, names))}; send them in one field."
        raise RefusedError(400, message, "image_repeated", names[1])
    if len(images) > MAX_IMAGES:
        raise RefusedError(400, f"The form holds more than {MAX_IMAGES} images.", "images_invalid", names[0])
    others = ((name, value) for name, value in fields if name not in IMAGE_FIELDS)
    options = _short(_options(others, options))
    payloads = tuple(Payload(value, options) for _, value in images)
    if len(payloads) > 1:
        return Batch(payloads)
    return payloads[0] if payloads else Payload(b"", options)


def _json_batch(body: bytes, options: dict[str, str]) -> Batch | None:
    """The images of a JSON body with `images`. Any other body is None: the handler reads it."""
    if b'"images"' not in body or not JSON_BODY.match(body):
        return None
    try:
        # An object becomes a tuple of pairs, so that repeated names are seen.
        fields = json.loads(body.decode("utf-8-sig"), object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return None
    names = [name for name, _ in fields] if isinstance(fields, tuple) else []
    if "images" not in names:
        return None
    if "image" in names or names.count("images") > 1:
        message = "The JSON body has several fields for images; send 'images' once."
        raise RefusedError(400, message, "image_repeated", "images")
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise RefusedError(400, f"{repeated[:40]!r} is given more than once.", "option_repeated", repeated)
    others = dict(fields)
    images = others.pop("images")
    texts = isinstance(images, list) and all(isinstance(image, str) for image in images)
    if not texts or not 1 <= len(images) <= MAX_IMAGES:
        message = f"'images' must be a list of 1 to {MAX_IMAGES} base64 strings."
        raise RefusedError(400, message, "images_invalid", "images")
    return Batch(tuple(Payload(json.dumps({**others, "image": image}).encode(), options) for image in images))


def _options(fields: Fields, options: dict[str, str]) -> dict[str, str]:
    options = dict(options)
    for name, value in fields:
        if name in IMAGE_FIELDS:
            raise RefusedError(400, f"{name!r} is the image; send it in the body.", "option_misplaced", name)
        if not name:
            raise RefusedError(400, "An option has no name.", "option_unknown", "")
        if name in options:
            raise RefusedError(400, f"{name[:40]!r} is given more than once.", "option_repeated", name)
        options[name] = _text(value, name)
    return options


def _short(options: dict[str, str]) -> dict[str, str]:
    size = len(urlencode(options, quote_via=quote))
    if size > MAX_OPTIONS:
        field = max(options, key=lambda name: len(name) + len(options[name]))
        raise RefusedError(400, f"The options take {size} bytes; {MAX_OPTIONS} is the most.", "options_too_long", field)
    return options


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"{name[:40]!r} is not UTF-8 text.", "parameter_invalid", name) from error


def _urlencoded(body: bytes) -> Fields:
    if len(body) > MAX_FORM:
        message = f"A form without files has at most {MAX_FORM} bytes; send the image as multipart/form-data."
        raise RefusedError(400, message, "options_too_long", "body")
    return _pairs(body)


def _pairs(encoded: bytes) -> Fields:
    """The fields of a query string or of a urlencoded form."""
    try:
        # Bytes beyond ASCII are taken as if they were escaped.
        text = quote_from_bytes(encoded, safe=string.punctuation)
        pairs = parse_qsl(text, keep_blank_values=True, errors="surrogateescape", max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise _too_many() from error
    return [(_name(_bytes(name)), _bytes(value)) for name, value in pairs]


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _parts(content_type: bytes, body: bytes) -> Fields:
    """The fields of a multipart form."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise RefusedError(400, "The form's Content-Type names no boundary.", "form_invalid", "body")
    form = _Form()
    try:
        form.read(boundary, body)
    except FormParserError as error:
        raise RefusedError(400, f"The form is malformed: {error}", "form_invalid", "body") from error
    if not form.complete:
        raise RefusedError(400, "The form ends before its last boundary.", "form_invalid", "body")
    return form.fields


class _Form:
    """Collects the fields that a parser reports."""

    def __init__(self) -> None:
        self.fields: list[tuple[str, bytes]] = []
        self.complete = False

    def read(self, boundary: bytes, body: bytes) -> None:
        """Raises `FormParserError`."""
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_begin": self._begin_header,
                "on_header_field": self._add_header_name,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )
        parser.write(body)

    def _begin_part(self) -> None:
        if len(self.fields) == MAX_FIELDS + MAX_IMAGES:
            raise _too_many()
        self._headers: dict[bytes, bytes] = {}
        self._data = bytearray()

    def _begin_header(self) -> None:
        self._header, self._value = b"", b""

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._header.lower()] = self._value

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def _end_part(self) -> None:
        self.fields.append(_field(self._headers, bytes(self._data)))

    def _end(self) -> None:
        self.complete = True


def _field(headers: dict[bytes, bytes], data: bytes) -> tuple[str, bytes]:
    """The name and the content of one part."""
    parameters = parse_options_header(headers.get(b"content-disposition"))[1]
    if b"name" not in parameters:
        raise RefusedError(400, "A part of the form has no name.", "form_invalid", "body")
    name = _name(parameters[b"name"])
    if b"filename" in parameters and name not in IMAGE_FIELDS:
        message = f"There is no field {name[:40]!r} for a file; send the image as 'data'."
        raise RefusedError(400, message, "image_misplaced", name)
    encoding = headers.get(b"content-transfer-encoding", b"binary").strip().lower()
    if encoding not in TRANSFER_ENCODINGS:
        message = f"The transfer encoding {encoding[:40].decode(errors='replace')!r} of a part is not supported."
        raise RefusedError(400, message, "form_invalid", name)
    try:
        return name, TRANSFER_ENCODINGS[encoding](data)
    except ValueError as error:
        message = f"A part is not valid {encoding.decode()}."
        raise RefusedError(400, message, "form_invalid", name) from error


def _name(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        message = "The name of an option is not UTF-8 text."
        raise RefusedError(400, message, "option_unknown", name.decode(errors="backslashreplace")) from error


def _too_many() -> RefusedError:
    return RefusedError(400, f"The request has more than {MAX_FIELDS} options.", "options_too_long")
