"""Queries, forms and compressed bodies to one payload, or one error that names the field."""

import base64
import gzip
import json
import quopri
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway.payload import MAX_FIELDS, MAX_IMAGES, MAX_OPTIONS, Batch, Payload, read_payload
from serving.gateway.policy import RefusedError
from serving.supervisor import TILE

IMAGE = TILE.read_bytes()
LIMIT = 1_000_000
FORM = b"multipart/form-data; boundary=x"
URLENCODED = b"application/x-www-form-urlencoded"


def read(
    body: bytes = b"", content_type: bytes = b"", query: bytes = b"", encoding: str = "", limit: int = LIMIT
) -> Payload | Batch:
    return read_payload(query, body, content_type, encoding, limit)


def read_one(*arguments: Any, **request: Any) -> Payload:
    payload = read(*arguments, **request)
    assert isinstance(payload, Payload)
    return payload


def refusal(**request: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        read(**request)
    return caught.value


def part(name: bytes, value: bytes, *, file: bool = False, headers: bytes = b"") -> bytes:
    filename = b'; filename="tile.png"' if file else b""
    head = b'--x\r\nContent-Disposition: form-data; name="' + name + b'"' + filename + headers
    return head + b"\r\n\r\n" + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--x--\r\n"


@pytest.mark.parametrize("content_type", [b"", b"image/png", b"application/octet-stream", b"text/plain", b"\xff"])
def test_a_plain_body_is_the_image(content_type: bytes) -> None:
    assert read(IMAGE, content_type, b"target=TUM&size=64") == Payload(IMAGE, {"target": "TUM", "size": "64"})


@pytest.mark.parametrize("name", ["data", "image", "file", "body"])
@pytest.mark.parametrize("file", [True, False])
def test_a_form_holds_the_image_in_any_of_its_fields(name: str, file: bool) -> None:
    body = form(part(b"method", b"gradcam"), part(name.encode(), IMAGE, file=file), part(b"target", b"TUM"))
    assert read(body, FORM, b"size=64") == Payload(IMAGE, {"size": "64", "method": "gradcam", "target": "TUM"})


@pytest.mark.parametrize("options", [{}, {"method": "gradcam", "target": "TUM"}])
def test_a_form_of_another_library_is_read(options: dict[str, str]) -> None:
    prepared = requests.Request("POST", "http://x", data=options, files={"data": ("a.png", IMAGE)}).prepare()
    assert isinstance(prepared.body, bytes)
    assert read(prepared.body, prepared.headers["Content-Type"].encode()) == Payload(IMAGE, options)


@pytest.mark.parametrize("encoding", [b"binary", b"8bit", b"BASE64", b"quoted-printable"])
def test_a_part_may_have_a_transfer_encoding(encoding: bytes) -> None:
    encode: dict[bytes, Callable[[bytes], bytes]] = {
        b"BASE64": base64.encodebytes,
        b"quoted-printable": quopri.encodestring,
    }
    value = encode.get(encoding, bytes)(b"a=\xff\nb")
    headers = b"\r\nContent-Transfer-Encoding: " + encoding
    assert read_one(form(part(b"data", value, file=True, headers=headers)), FORM).body == b"a=\xff\nb"


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        ({"query": b"target=1&target=2"}, "option_repeated", "target"),
        ({"query": b"target=1&target=1"}, "option_repeated", "target"),
        ({"query": b"target=1&%74arget=1"}, "option_repeated", "target"),
        ({"query": b"a&a"}, "option_repeated", "a"),
        (
            {"body": form(part(b"target", b"1"), part(b"target", b"2")), "content_type": FORM},
            "option_repeated",
            "target",
        ),
        ({"body": b"target=1&target=2", "content_type": URLENCODED}, "option_repeated", "target"),
        ({"body": b"target=1", "content_type": URLENCODED, "query": b"target=1"}, "option_repeated", "target"),
        (
            {"body": form(part(b"target", b"1")), "content_type": FORM, "query": b"target=1"},
            "option_repeated",
            "target",
        ),
        (
            {"body": form(part(b"data", b"1", file=True), part(b"image", b"2", file=True)), "content_type": FORM},
            "image_repeated",
            "image",
        ),
        ({"body": b"data=1&image=2", "content_type": URLENCODED}, "image_repeated", "image"),
        ({"body": b'{"images": ["x"], "image": "x"}'}, "image_repeated", "images"),
        ({"body": b'{"images": ["x"], "images": ["x"]}'}, "image_repeated", "images"),
        ({"body": b'{"images": ["x"], "target": 1, "target": 1}'}, "option_repeated", "target"),
    ],
)
def test_what_is_said_twice_is_refused(request_: dict[str, Any], code: str, field: str) -> None:
    error = refusal(**request_)
    assert (error.status, error.code) == (400, code)
    assert f'"field":"{field}"'.encode() in error.body


WHOLE = form(part(b"data", IMAGE, file=True))


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (WHOLE, b"multipart/form-data", "boundary"),
        (WHOLE, b"multipart/form-data; boundary=", "boundary"),
        (WHOLE, b"multipart/form-data; boundary=" + b"y" * 300, "oundary"),
        (WHOLE, b"multipart/form-data; boundary=y", "malformed"),
        (WHOLE.replace(b"form-data;", b"form-data"), FORM, "name"),
        (WHOLE, b"", "boundary"),
        (WHOLE, b"application/octet-stream", "boundary"),
        (WHOLE[:-9], FORM, "last boundary"),
        (WHOLE[:200], FORM, "last boundary"),
        (WHOLE[:40], FORM, "last boundary"),
        (b"", FORM, "last boundary"),
        (WHOLE.replace(b'name="data"; ', b""), FORM, "name"),
        (WHOLE.replace(b"Content-Disposition", b"Other"), FORM, "name"),
        (WHOLE.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: zip\r\n\r\n", 1), FORM, "zip"),
        (form(part(b"data", b"%%%", file=True, headers=b"\r\nContent-Transfer-Encoding: base64")), FORM, "base64"),
        (WHOLE.replace(b"\r\n\r\n", b"\r\nx: " + b"y" * 100_000 + b"\r\n\r\n", 1), FORM, "header"),
        (WHOLE.replace(b"\r\n\r\n", b"\r\nno colon\r\n\r\n", 1), FORM, "malformed"),
        (IMAGE, FORM, "malformed"),
    ],
)
def test_a_malformed_form_is_refused(body: bytes, content_type: bytes, says: str) -> None:
    error = refusal(body=body, content_type=content_type)
    assert (error.status, error.code) == (400, "form_invalid")
    assert says in str(error)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"query": b"a=%ff"}, "parameter_invalid"),
        ({"query": b"a=\xff"}, "parameter_invalid"),
        ({"query": b"%ff=a"}, "option_unknown"),
        ({"query": b"=a"}, "option_unknown"),
        ({"query": b"data=a"}, "option_misplaced"),
        ({"query": b"image=a"}, "option_misplaced"),
        ({"query": b"&".join(b"a%d=" % number for number in range(MAX_FIELDS + 1))}, "options_too_long"),
        ({"query": b"a=" + b"b" * MAX_OPTIONS}, "options_too_long"),
        ({"body": b"a=" + b"b" * 20_000, "content_type": URLENCODED}, "options_too_long"),
        ({"body": form(part(b"a", b"b" * MAX_OPTIONS)), "content_type": FORM}, "options_too_long"),
        (
            {"body": form(*(part(b"a%d" % number, b"") for number in range(MAX_FIELDS + 1))), "content_type": FORM},
            "options_too_long",
        ),
        ({"body": form(part(b"picture", IMAGE, file=True)), "content_type": FORM}, "image_misplaced"),
        ({"body": form(part(b"\xff", b"a")), "content_type": FORM}, "option_unknown"),
        ({"body": b"5", "content_type": b"application/json"}, "json_invalid"),
        ({"body": IMAGE, "content_type": b"application/json; charset=utf-8"}, "json_invalid"),
    ],
)
def test_other_faults_have_codes_of_their_own(request_: dict[str, Any], code: str) -> None:
    error = refusal(**request_)
    assert (error.status, error.code) == (400, code)


@pytest.mark.parametrize("name", [b"data", b"image", b"file", b"body"])
def test_several_images_of_one_field_are_a_batch(name: bytes) -> None:
    body = form(part(name, b"1", file=True), part(b"target", b"TUM"), part(name, b"2", file=True))
    assert read(body, FORM, b"size=64") == Batch(
        tuple(Payload(image, {"size": "64", "target": "TUM"}) for image in (b"1", b"2"))
    )


def test_several_images_in_json_are_a_batch() -> None:
    found = read(b'\xef\xbb\xbf {"target": "TUM", "images": ["eA==", "eQ=="]}', query=b"size=64")
    assert isinstance(found, Batch)
    assert [json.loads(item.body) for item in found.payloads] == [
        {"target": "TUM", "image": "eA=="},
        {"target": "TUM", "image": "eQ=="},
    ]
    assert all(item.options == {"size": "64"} for item in found.payloads)


@pytest.mark.parametrize(
    "request_",
    [
        {"body": form(*(part(b"data", b"1", file=True) for _ in range(MAX_IMAGES + 1))), "content_type": FORM},
        {"body": json.dumps({"images": ["eA=="] * (MAX_IMAGES + 1)}).encode()},
        {"body": b'{"images": []}'},
        {"body": b'{"images": ["eA==", null]}'},
        {"body": b'{"images": "eA=="}'},
        {"body": b'{"images": {"image": "eA=="}}'},
    ],
)
def test_a_batch_has_a_bounded_number_of_images(request_: dict[str, Any]) -> None:
    error = refusal(**request_)
    assert (error.status, error.code) == (400, "images_invalid")


@pytest.mark.parametrize(
    "body", [b'{"images"', b'[{"images": []}]', b'{"image": "\\"images\\""}', b'{"a": {"images": [1]}}']
)
def test_other_json_that_speaks_of_images_is_passed_on(body: bytes) -> None:
    assert read(body) == Payload(body, {})


@pytest.mark.parametrize("body", [b'{"image":"x"}', b'\xef\xbb\xbf{"image": "x"}', b'\n {"image": "x"}', b"[1]"])
@pytest.mark.parametrize("content_type", [b"", b"application/json", URLENCODED, b"text/plain"])
def test_json_is_passed_on_whatever_it_is_called(body: bytes, content_type: bytes) -> None:
    assert read(body, content_type) == Payload(body, {})


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("X-GZIP", gzip.compress),
        (" gzip ", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
    ],
)
def test_a_compressed_body_is_decompressed(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    assert read_one(compress(IMAGE), encoding=encoding).body == IMAGE
    assert read_one(compress(WHOLE), FORM, encoding=encoding).body == IMAGE


@pytest.mark.parametrize(
    ("body", "encoding", "status", "code"),
    [
        (IMAGE, "gzip", 400, "encoding_invalid"),
        (IMAGE, "deflate", 400, "encoding_invalid"),
        (gzip.compress(IMAGE)[:-9], "gzip", 400, "encoding_invalid"),
        (gzip.compress(IMAGE) + b"x", "gzip", 400, "encoding_invalid"),
        (gzip.compress(bytes(LIMIT + 1)), "gzip", 413, "request_too_large"),
        (zlib.compress(bytes(100 * LIMIT)), "deflate", 413, "request_too_large"),
        (IMAGE, "zstd", 415, "encoding_unsupported"),
        (IMAGE, "br", 415, "encoding_unsupported"),
        (gzip.compress(IMAGE), "gzip, gzip", 415, "encoding_unsupported"),
    ],
)
def test_a_false_or_enormous_compression_is_refused(body: bytes, encoding: str, status: int, code: str) -> None:
    error = refusal(body=body, encoding=encoding)
    assert (error.status, error.code) == (status, code)


@given(
    query=st.binary(max_size=60),
    body=st.binary(max_size=200) | st.builds(lambda head, tail: head + tail, st.just(part(b"data", b"")), st.binary()),
    content_type=st.sampled_from([b"", FORM, URLENCODED, b"application/json"]) | st.binary(max_size=40),
    encoding=st.sampled_from(["", "gzip", "deflate"]) | st.text(max_size=8),
)
def test_any_bytes_are_a_payload_or_a_refusal(query: bytes, body: bytes, content_type: bytes, encoding: str) -> None:
    try:
        payload = read(body, content_type, query, encoding)
    except RefusedError as error:
        assert 400 <= error.status < 500
    else:
        for item in payload.payloads if isinstance(payload, Batch) else (payload,):
            assert len(item.query) <= MAX_OPTIONS
