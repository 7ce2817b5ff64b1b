"""A request's query and body, in whatever shape they arrive, to one body and one set of options.

TorchServe drops repeated fields and answers malformed forms with Java's messages, so forms are read here.
"""

import logging
import re
import string
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from urllib.parse import parse_qsl, quote, quote_from_bytes, urlencode

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from serving.gateway.policy import JSON, RefusedError

FORM = "application/x-www-form-urlencoded"
OCTETS = "application/octet-stream"
# Form fields that may hold the image; `body` is TorchServe's name for it.
IMAGE_FIELDS = ("data", "image", "file", "body")
MAX_FIELDS = 64
# Bytes of the encoded options. TorchServe takes 4096 for a request line.
MAX_OPTIONS = 3000
# Bytes of a form without files.
MAX_FORM = 16 * 1024
JSON_BODY = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*[{\[]")
# curl names everything a form that `--data-binary` sends; an image is not one.
FORM_TEXT = re.compile(rb"[!-~]*")
FORM_PART = re.compile(rb"--[^\r\n]+\r?\ncontent-disposition:", re.IGNORECASE)
FORM_CONFIG = {"UPLOAD_ERROR_ON_BAD_CTE": True, "MAX_MEMORY_FILE_SIZE": float("inf")}
# zlib's window sizes: a gzip header, a zlib header, and none.
GZIP, ZLIB, RAW = 31, 15, -15
ENCODINGS = {"gzip": GZIP, "x-gzip": GZIP, "deflate": ZLIB}

Fields = Iterable[tuple[str, bytes]]

# It says of every malformed form what the client is told too.
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


def read_payload(query: bytes, body: bytes, content_type: bytes, content_encoding: str, limit: int) -> Payload:
    """Decompress the body, read it if it is a form, and join its fields with the query's.

    Raises `RefusedError` if a part is malformed, given twice, or larger than `limit` bytes after decompression.
    """
    body = _decompressed(body, content_encoding.strip().lower(), limit)
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
    return Payload(body, _short(options))


def _decompressed(body: bytes, encoding: str, limit: int) -> bytes:
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


def _form(fields: Fields, options: dict[str, str]) -> Payload:
    """One image, if any, and options that the query does not give too."""
    fields = list(fields)
    images = [(name, value) for name, value in fields if name in IMAGE_FIELDS]
    if len(images) > 1:
        names = " and ".join(repr(name) for name, _ in images[:2])
        raise RefusedError(400, f"The form holds several images, in {names}; send one.", "image_repeated", images[1][0])
    others = ((name, value) for name, value in fields if name not in IMAGE_FIELDS)
    return Payload(images[0][1] if images else b"", _short(_options(others, options)))


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
    media_type, parameters = parse_options_header(content_type)
    if b"boundary" not in parameters:
        raise RefusedError(400, "The form's Content-Type names no boundary.", "form_invalid", "body")
    fields: list[tuple[str, bytes]] = []
    ends: list[bool] = []

    def add(part: Field | File) -> None:
        if len(fields) == MAX_FIELDS:
            raise _too_many()
        fields.append(_part(part))

    try:
        parser = FormParser(
            media_type.decode("latin-1"),
            add,
            add,
            on_end=lambda: ends.append(True),
            boundary=parameters[b"boundary"],
            config=FORM_CONFIG,
        )
        parser.write(body)
    except FormParserError as error:
        raise RefusedError(400, f"The form is malformed: {error}", "form_invalid", "body") from error
    if not ends:
        raise RefusedError(400, "The form ends before its last boundary.", "form_invalid", "body")
    return fields


def _part(part: Field | File) -> tuple[str, bytes]:
    name = _name(part.field_name or b"")
    if isinstance(part, Field):
        return name, part.value or b""
    if name not in IMAGE_FIELDS:
        message = f"There is no field {name[:40]!r} for a file; send the image as 'data'."
        raise RefusedError(400, message, "image_misplaced", name)
    assert isinstance(part.file_object, BytesIO)
    return name, part.file_object.getvalue()


def _name(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        message = "The name of an option is not UTF-8 text."
        raise RefusedError(400, message, "option_unknown", name.decode(errors="backslashreplace")) from error


def _too_many() -> RefusedError:
    return RefusedError(400, f"The request has more than {MAX_FIELDS} fields.", "options_too_long")
