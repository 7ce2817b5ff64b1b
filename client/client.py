"""`Client(url).classify(images)` and `.explain(images)`: typed answers, maps as arrays."""

import base64
import dataclasses
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import requests
from numpy.typing import NDArray

MODEL = "pathmnist"
# Images of one request (`limits.max_images` of `Client.about`).
MAX_IMAGES = 64
# Bytes of the image files of one request. Base64 makes them a third larger, and the server takes 16 MiB.
MAX_BYTES = 11 * 1024 * 1024
# Seconds to wait before a further attempt if the server names none, and at most.
WAIT, LONGEST_WAIT = 1.0, 30.0
BUSY = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
BUSY_CODES = {"overloaded", "rate_limited"}

# An image file, its path, or uint8 RGB pixels `[H, W, 3]`.
Image = bytes | Path | NDArray[np.uint8]


class ServerError(Exception):
    """An error of the server: its stable `code`, the `field` it concerns, and the HTTP `status`.

    The status is 0 for the error of one image of several.
    """

    def __init__(self, status: int, error: Mapping[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['message']}")
        self.status = status
        self.code: str = error["code"]
        self.field: str | None = error["field"]


@dataclass(frozen=True)
class Explanation:
    """One map: `attribution` is signed, float32 `[h, w]` or `[3, h, w]`, in `unit`.

    It is None if the time budget was too short. `details` are all fields of the response, such as
    `completeness_residual`.
    """

    method: str
    target: str
    attribution: NDArray[np.float32] | None
    unit: str | None
    details: Mapping[str, Any] = dataclasses.field(repr=False)


@dataclass(frozen=True)
class Field:
    """The field of view: `microns` is the side of the classified square, `mpp` the micrometres a pixel, and `source`
    says who stated them (request, tiff, ome, png). All three are None if nobody did; the server then assumes a tile."""

    microns: float | None
    mpp: float | None
    source: str | None


@dataclass(frozen=True)
class Fit:
    """Whether the picture is fit to be judged: `verdict` is fit, doubtful or unfit, `reasons` are words such as
    `out_of_focus`. `figures` are the measured numbers by name."""

    verdict: str | None
    reasons: tuple[str, ...]
    figures: Mapping[str, float] = dataclasses.field(repr=False)


@dataclass(frozen=True)
class Answer:
    """The answer for one image.

    `code` is the predicted class, `probability` its probability, `probabilities` those of all classes. What needs a
    calibrated model is None without one; `field` and `fit` are None if `include` leaves them out. `content` is the
    whole response, as docs/api.md describes it.
    """

    code: str
    probability: float
    probabilities: Mapping[str, float]
    logits: NDArray[np.float64]
    in_distribution: bool | None
    field: Field | None
    fit: Fit | None
    explanations: tuple[Explanation, ...]
    content: Mapping[str, Any] = dataclasses.field(repr=False)


class Client:
    """Talks to one server. If it is busy, requests wait as long as it asks, up to `attempts` times."""

    def __init__(
        self, url: str = "http://127.0.0.1:8080", token: str = "", timeout: float = 300, attempts: int = 5
    ) -> None:
        self._url = url.rstrip("/")
        self._timeout = timeout
        self._attempts = attempts
        self._session = requests.Session()
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def about(self) -> dict[str, Any]:
        """The model: version, classes, methods, limits, scores. Raises `ServerError` and requests' errors."""
        return self._send("GET", f"models/{MODEL}")

    def classify(self, images: Sequence[Image], **options: Any) -> list[Answer]:
        """The answers for any number of images, in order. `options` are those of `/predictions`.

        Raises `ServerError` for the first image that cannot be answered, and requests' errors.
        """
        return self._answers("predictions", images, options)

    def explain(self, images: Sequence[Image], method: str = "gradcam", **options: Any) -> list[Answer]:
        """The same with maps. `options` are those of `/explanations`; raises what `classify` raises."""
        return self._answers("explanations", images, {"return": "raw", **options, "method": method})

    def classify_region(self, image: Image, mpp: float | None = None) -> dict[str, Any]:
        """The map of a region's tissues, as docs/regions.md describes it. `mpp` is the size of a pixel in micrometres.

        Waits as long as it takes; raises `ServerError` and requests' errors.
        """
        options = {} if mpp is None else {"mpp": mpp}
        headers = {"Prefer": "respond-async"}
        job = self._send("POST", f"regions/{MODEL}", params=options, data=_file(image), headers=headers)
        path = f"jobs/{job['id']}"
        try:
            while job["state"] in ("queued", "running"):
                time.sleep(WAIT)
                job = self._send("GET", path)
            return self._send("GET", f"{path}/map.json")
        finally:
            self._session.delete(f"{self._url}/{path}", timeout=self._timeout)

    def _answers(self, verb: str, images: Sequence[Image], options: Mapping[str, Any]) -> list[Answer]:
        files = [_file(image) for image in images]
        return [answer for batch in _batches(files) for answer in self._batch(verb, batch, options)]

    def _batch(self, verb: str, files: Sequence[bytes], options: Mapping[str, Any]) -> list[Answer]:
        """The answers for one request's images. Those for which the queue was full are sent again."""
        results: dict[int, Mapping[str, Any]] = {}
        for attempt in range(self._attempts):
            missing = [index for index in range(len(files)) if _is_missing(results.get(index))]
            if not missing:
                break
            if attempt:
                time.sleep(WAIT)
            encoded = [base64.b64encode(files[index]).decode() for index in missing]
            body = {"images": encoded}
            found = self._send("POST", f"{verb}/{MODEL}", params=options, json=body)["results"]
            results |= dict(zip(missing, found, strict=True))
        return [_answer(results[index]) for index in range(len(files))]

    def _send(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        for attempt in range(self._attempts):
            response = self._session.request(method, f"{self._url}/{path}", timeout=self._timeout, **request)
            if response.status_code not in BUSY or attempt == self._attempts - 1:
                break
            time.sleep(min(float(response.headers.get("Retry-After", WAIT)), LONGEST_WAIT))
        content: dict[str, Any] = response.json()
        if not response.ok:
            raise ServerError(response.status_code, content["error"])
        return content


def _file(image: Image) -> bytes:
    if isinstance(image, bytes):
        return image
    return image.read_bytes() if isinstance(image, Path) else _bitmap(image)


def _bitmap(pixels: NDArray[np.uint8]) -> bytes:
    """RGB pixels as an uncompressed BMP file: rows from the bottom, BGR, each padded to four bytes."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels must be uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
    height, width, _ = pixels.shape
    rows = pixels[::-1, :, ::-1].reshape(height, width * 3)
    data = np.pad(rows, ((0, 0), (0, -width * 3 % 4))).tobytes()
    head = struct.pack("<2sIHHI", b"BM", 54 + len(data), 0, 0, 54)
    return head + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(data), 0, 0, 0, 0) + data


def _batches(files: Sequence[bytes]) -> list[list[bytes]]:
    """Parts of at most `MAX_IMAGES` files and `MAX_BYTES` bytes, unless a single file has more."""
    batches: list[list[bytes]] = []
    for file in files:
        last = batches[-1] if batches else None
        if last is None or len(last) == MAX_IMAGES or sum(map(len, last)) + len(file) > MAX_BYTES:
            batches.append([file])
        else:
            last.append(file)
    return batches


def _is_missing(result: Mapping[str, Any] | None) -> bool:
    return result is None or result.get("error", {}).get("code") in BUSY_CODES


def _answer(result: Mapping[str, Any]) -> Answer:
    if "error" in result:
        raise ServerError(0, result["error"])
    return Answer(
        result["prediction"]["code"],
        result["prediction"]["probability"],
        result["probabilities"],
        np.array(result["logits"]),
        result.get("in_distribution"),
        _field(result["field"]) if "field" in result else None,
        _fit(result["fit"]) if "fit" in result else None,
        tuple(_explanation(item) for item in result.get("explanations", ())),
        result,
    )


def _field(item: Mapping[str, Any]) -> Field:
    return Field(item["microns"], item["mpp"], item["source"])


def _fit(item: Mapping[str, Any]) -> Fit:
    figures = {name: value for name, value in item.items() if name not in ("verdict", "reasons")}
    return Fit(item["verdict"], tuple(item["reasons"]), figures)


def _explanation(item: Mapping[str, Any]) -> Explanation:
    values = _attribution(item["attribution"]) if "attribution" in item else None
    return Explanation(item["method"], item["target"]["code"], values, item.get("unit"), item)


def _attribution(item: Mapping[str, Any]) -> NDArray[np.float32]:
    """The map, from base64 of little-endian numbers that have to be multiplied by a scale."""
    kind = "<f2" if item["dtype"] == "float16" else "<f4"
    values = np.frombuffer(base64.b64decode(item["data"]), kind).astype(np.float32) * np.float32(item["scale"])
    return values.reshape(item["shape"])
