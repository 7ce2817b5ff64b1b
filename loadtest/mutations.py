"""Malformed requests as raw bytes: valid requests with random damage.

A request depends only on its seed and number, so failures are reproducible.
"""

import base64
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote

import numpy as np
from PIL import Image

from loadtest.tiles import generate

SIDE = 64
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF")
BOUNDARY = "fuzz-boundary"
# Names and values close to valid ones. None requires long computation.
NAMES: tuple[str, ...] = (
    "explain",
    "method",
    "target",
    "contrast",
    "size",
    "alpha",
    "sigma",
    "colormap",
    "return",
    "dtype",
    "include",
)
NAMES += ("coverage", "preset", "n_steps", "window", "budget_ms", "data", "image", "", "\x00", "\ud800", "é", "a" * 300)
VALUES: tuple[str, ...] = (
    "gradcam",
    "gradcam,layercam",
    "saliency",
    "TUM",
    "8",
    "9",
    "-1",
    "all",
    "64",
    "1e400",
    "nan",
    "0.5",
    "none",
)
VALUES += ("", "\x00", "\udfff", "٣", "1_0", "raw", "both", "float16", "risk", "0.95", "' OR 1=1", "x" * 2000)
HEADERS = (
    "Content-Type: multipart/form-data",
    "Content-Type: multipart/form-data; boundary=",
    "Content-Type: application/json; charset=utf-16",
    "Content-Type: text/plain; charset=\xff",
    "Content-Type: ;;;",
    "Content-Encoding: gzip",
    "Content-Encoding: zstd",
    "Content-Length: 5",
    "Content-Length: -1",
    "Transfer-Encoding: chunked",
    "Host: a\r\nHost: b",
    "Expect: miracles",
    "X-Request-Id: " + "x" * 100,
    "Origin: null",
    "Authorization: Bearer \xff",
    "traceparent: 00-zz-zz-01",
    "X: " + "y" * 9000,
    "broken",
)
METHODS = ("POST", "POST", "POST", "PUT", "GET", "DELETE", "OPTIONS", "HEAD", "PO ST", "")
PATHS: tuple[str, ...] = (
    "/predictions/pathmnist",
    "/explanations/pathmnist",
    "/predictions/pathmnist/9.9",
    "/predictions/%2e%2e/x",
)
PATHS += ("/predictions", "//", "/predictions/pathmnist%00", "*", "http://[::1", "/" + "a" * 9000)

Chance = np.random.Generator


@dataclass(frozen=True)
class Mutation:
    """A request. `answered` is true if it is complete HTTP, so the server must respond."""

    kind: str
    data: bytes
    answered: bool = True


def mutation(seed: int, number: int) -> Mutation:
    """The request with this number."""
    chance = np.random.default_rng((seed, number))
    kind = tuple(KINDS)[number % len(KINDS)]
    return KINDS[kind](chance)


def damaged(data: bytes, chance: Chance) -> bytes:
    """Bytes with flipped, truncated, removed, inserted or repeated parts."""
    changed = bytearray(data)
    start = int(chance.integers(0, len(data)))
    end = start + int(chance.integers(1, 64))
    match chance.integers(0, 5):
        case 0:
            for place in chance.integers(0, len(data), chance.integers(1, 20)):
                changed[place] ^= int(chance.integers(1, 256))
        case 1:
            del changed[start:]
        case 2:
            del changed[start:end]
        case 3:
            changed[start:start] = chance.bytes(int(chance.integers(1, 64)))
        case _:
            changed[start:start] = changed[start:end] * int(chance.integers(1, 50))
    return bytes(changed)


@cache
def _tile(seed: int) -> Image.Image:
    return Image.open(io.BytesIO(generate(seed))).resize((SIDE, SIDE))


def _picture(chance: Chance) -> bytes:
    buffer = io.BytesIO()
    _tile(int(chance.integers(0, 8))).convert(str(chance.choice(["RGB", "L"]))).save(
        buffer, str(chance.choice(FORMATS))
    )
    return buffer.getvalue()


def _request(body: bytes, headers: str = "", target: str = "", method: str = "POST") -> bytes:
    target = target or "/predictions/pathmnist"
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: fuzz\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode("latin-1", "replace") + body


def _image(chance: Chance) -> Mutation:
    return Mutation("image", _request(damaged(_picture(chance), chance)))


def _query(chance: Chance) -> Mutation:
    names = [_pick(NAMES, chance) for _ in range(chance.integers(1, 4))]
    pairs = [(name, _pick(VALUES, chance)) for name in names]
    query = "&".join(
        f"{quote(name, errors='surrogatepass')}={quote(value, errors='surrogatepass')}" for name, value in pairs
    )
    verb = _pick(PATHS[:2], chance)
    return Mutation("query", _request(_picture(chance), target=f"{verb}?{query}"))


def _json(chance: Chance) -> Mutation:
    image = base64.b64encode(_picture(chance)).decode()
    pairs = [("image", image), *((_pick(NAMES, chance), _pick(VALUES, chance)) for _ in range(chance.integers(0, 4)))]
    text = "{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs) + "}"
    body = text.encode()
    if chance.integers(0, 2):
        body = damaged(body, chance)
    return Mutation("json", _request(body, str(chance.choice(["", "Content-Type: application/json\r\n"]))))


def _form(chance: Chance) -> Mutation:
    parts = [f'name="{_pick(NAMES, chance)}"\r\n\r\n{_pick(VALUES, chance)}'.encode(errors="replace")]
    parts += [
        f'name="{name}"; filename="a"\r\n\r\n'.encode() + _picture(chance) for name in chance.permutation(FILES)[:2]
    ]
    body = b"".join(b"--%s\r\nContent-Disposition: form-data; %s\r\n" % (BOUNDARY.encode(), part) for part in parts)
    body = damaged(body + f"--{BOUNDARY}--\r\n".encode(), chance)
    return Mutation("form", _request(body, f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"))


def _compressed(chance: Chance) -> Mutation:
    body = gzip.compress(_picture(chance))
    encoding = _pick(("gzip", "deflate", "br", "identity", "gzip, gzip"), chance)
    return Mutation("compressed", _request(damaged(body, chance), f"Content-Encoding: {encoding}\r\n"))


def _headers(chance: Chance) -> Mutation:
    lines = "".join(f"{_pick(HEADERS, chance)}\r\n" for _ in range(chance.integers(1, 4)))
    return Mutation("headers", _request(_picture(chance), lines), answered=False)


def _address(chance: Chance) -> Mutation:
    request = _request(_picture(chance), target=_pick(PATHS, chance), method=_pick(METHODS, chance))
    return Mutation("address", request, answered=False)


def _wire(chance: Chance) -> Mutation:
    request = _request(_picture(chance))
    end = request.index(b"\r\n\r\n")
    return Mutation("wire", damaged(request[:end], chance) + request[end:], answered=False)


def _pick(choices: tuple[str, ...], chance: Chance) -> str:
    return choices[int(chance.integers(0, len(choices)))]


FILES = ("data", "image", "file", "picture")
KINDS: dict[str, Callable[[Chance], Mutation]] = {
    "image": _image,
    "query": _query,
    "json": _json,
    "form": _form,
    "compressed": _compressed,
    "headers": _headers,
    "address": _address,
    "wire": _wire,
}
