"""The Open Inference Protocol v2 over HTTP: tensors to images and options, and answers to tensors.

The protocol is KServe's (github.com/kserve/open-inference-protocol), with Triton's binary tensors.
"""

import base64
import math
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import orjson
from PIL import Image

from serving.gateway.answer import Question
from serving.gateway.payload import MAX_IMAGES, OCTETS, Payload
from serving.gateway.policy import JSON, RefusedError

INPUT = "image"
# The JSON's length in a body that goes on with binary tensors.
HEADER_LENGTH = "Inference-Header-Content-Length"
EXPLANATION = "explanation"
# Bytes of an output that JSON may hold as numbers: a million floats, seven maps of three channels.
MAX_JSON = 4 * 1024**2


@dataclass(frozen=True)
class Tensor:
    """An output as the metadata describes it. A size of -1 is any."""

    datatype: str
    shape: tuple[int, ...]


OUTPUTS = {
    "probabilities": Tensor("FP32", (-1, 9)),
    "logits": Tensor("FP32", (-1, 9)),
    "class": Tensor("BYTES", (-1,)),
    "fit": Tensor("BYTES", (-1,)),
    "embedding": Tensor("FP32", (-1, 512)),
    "cam": Tensor("FP32", (-1, 9, 7, 7)),
    EXPLANATION: Tensor("FP32", (-1, -1, -1, -1)),
}
DEFAULT_OUTPUTS = ("probabilities", "logits", "class")
# Parameters that say something about the image, whatever the outputs.
IMAGE_PARAMETERS = {"mpp"}


@dataclass(frozen=True)
class Inference:
    """One request: image files, the outputs with whether each is binary, and the options of image and explanation."""

    identity: str
    images: tuple[bytes, ...]
    outputs: Mapping[str, bool]
    options: Mapping[str, str]

    @property
    def verbs(self) -> dict[str, dict[str, str]]:
        """The verbs whose answers the outputs need, each with its options."""
        parts = ",".join(name for name in ("embedding", "fit") if name in self.outputs)
        common = {name: self.options[name] for name in IMAGE_PARAMETERS & self.options.keys()}
        common["include"] = parts or "none"
        verbs = {}
        if EXPLANATION in self.outputs:
            verbs["explanations"] = {**self.options, "return": "raw", **common}
        if "cam" in self.outputs:
            verbs["predictions"] = {"explain": "gradcam", "target": "all", "return": "raw", **common}
        return verbs or {"predictions": common}

    def questions(self) -> list[Question]:
        """Everything that has to be asked, image by image."""
        return [
            Question(verb, Payload(image, options)) for image in self.images for verb, options in self.verbs.items()
        ]


def metadata(name: str, version: str) -> dict[str, Any]:
    """What a client learns about the model."""
    return {
        "name": name,
        "versions": [version],
        "platform": "pathmnist-xai",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": output, "datatype": tensor.datatype, "shape": tensor.shape} for output, tensor in OUTPUTS.items()
        ],
    }


def read_inference(body: bytes, header_length: str) -> Inference:
    """Read a request, whose JSON ends after `header_length` bytes, if given. Raises `RefusedError`."""
    end = len(body) if not header_length else _length(header_length, len(body))
    try:
        content = orjson.loads(body[:end])
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, "The body is not valid JSON.", "json_invalid", "body") from error
    if not isinstance(content, dict):
        raise _invalid("The body must be a JSON object.", "body")
    parameters = _object(content.get("parameters", {}), "parameters")
    images = _images(content.get("inputs"), memoryview(body)[end:])
    outputs = _outputs(content.get("outputs") or [], bool(parameters.get("binary_data_output", False)))
    options = {name: _text(name, value) for name, value in parameters.items() if name != "binary_data_output"}
    if (others := options.keys() - IMAGE_PARAMETERS) and EXPLANATION not in outputs:
        name = min(others)
        raise RefusedError(400, f"{name!r} has no meaning without the output 'explanation'.", "option_misplaced", name)
    if "," in options.get("method", "") or options.get("target") == "all":
        raise _invalid("The output 'explanation' holds one map of one method for each image.", "parameters")
    return Inference(_text("id", content.get("id", "")), images, outputs, options)


def write_answers(
    inference: Inference, name: str, version: str, bodies: Sequence[bytes]
) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of the response.

    `bodies` are the JSON answers to `Inference.questions`, in order.
    """
    answers = [orjson.loads(body) for body in bodies]
    verbs = list(inference.verbs)
    starts = range(0, len(answers), len(verbs))
    rows = [_row(verbs, answers[start : start + len(verbs)]) for start in starts]
    outputs, tail = [], b""
    for output, binary in inference.outputs.items():
        data, shape = _tensor(output, rows)
        head = {"name": output, "datatype": OUTPUTS[output].datatype, "shape": shape}
        if binary:
            outputs.append({**head, "parameters": {"binary_data_size": len(data)}})
            tail += data
        elif len(data) > MAX_JSON:
            message = f"The output {output!r} is too large for JSON; ask for it with 'binary_data'."
            raise _invalid(message, "outputs")
        else:
            words = OUTPUTS[output].datatype == "BYTES"
            outputs.append({**head, "data": [_word(output, row) for row in rows] if words else _numbers(data)})
    content = {"model_name": name, "model_version": version, "outputs": outputs}
    if inference.identity:
        content["id"] = inference.identity
    body = orjson.dumps(content)
    if not any(inference.outputs.values()):
        return body, {"Content-Type": JSON}
    return body + tail, {"Content-Type": OCTETS, HEADER_LENGTH: str(len(body))}


def _length(text: str, largest: int) -> int:
    # Python refuses to convert thousands of digits.
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= largest):
        raise _invalid(f"{HEADER_LENGTH} must be a number of bytes of the body.", HEADER_LENGTH)
    return int(text)


def _images(inputs: Any, tail: memoryview) -> tuple[bytes, ...]:
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise _invalid(f"The request needs one input, {INPUT!r}.", "inputs")
    tensor = _object(inputs[0], "inputs")
    if tensor.get("name") != INPUT:
        raise _invalid(f"The input's name is {INPUT!r}.", "inputs")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not shape or not all(type(side) is int and side > 0 for side in shape):
        raise _invalid("The input's shape must be a list of positive numbers.", "shape")
    if shape[0] > MAX_IMAGES:
        raise RefusedError(400, f"A request has at most {MAX_IMAGES} images.", "images_invalid", "shape")
    size = _object(tensor.get("parameters", {}), "parameters").get("binary_data_size")
    if size is not None and size != len(tail):
        raise _invalid("'binary_data_size' is not the number of bytes behind the JSON.", "binary_data_size")
    match tensor.get("datatype"):
        case "BYTES":
            files = _files(tensor.get("data")) if size is None else tuple(_elements(tail))
            if [len(files)] != shape:
                raise _invalid(f"The shape says {shape}, the data holds {len(files)} images.", "shape")
            return files
        case "UINT8":
            pixels = _pixels(tensor.get("data")) if size is None else bytes(tail)
            return tuple(_bitmaps(pixels, shape))
    raise _invalid(f"The input's datatype is BYTES or UINT8, not {str(tensor.get('datatype'))[:20]!r}.", "datatype")


def _files(data: Any) -> tuple[bytes, ...]:
    """Image files in JSON: base64, because JSON holds no bytes."""
    if not isinstance(data, list) or not all(isinstance(item, str) for item in data):
        raise _invalid("'data' must be a list of base64 strings.", "data")
    try:
        return tuple(base64.b64decode(item, validate=True) for item in data)
    except ValueError as error:
        raise RefusedError(400, "'data' is not valid base64.", "base64_invalid", "data") from error


def _elements(tail: memoryview) -> Iterator[bytes]:
    """Binary elements: each has four bytes of length before it."""
    position = 0
    while position < len(tail):
        if position + 4 > len(tail):
            raise _invalid("The binary data ends within a length.", "data")
        (length,) = struct.unpack_from("<I", tail, position)
        position += 4
        if position + length > len(tail):
            raise _invalid("The binary data ends within an element.", "data")
        yield bytes(tail[position : position + length])
        position += length


def _pixels(data: Any) -> bytes:
    """Numbers in nested or flat lists."""
    try:
        while data and isinstance(data[0], list):
            data = [value for part in data for value in part]
        return bytes(data)
    except (TypeError, ValueError, KeyError) as error:
        raise _invalid("'data' must be numbers from 0 to 255.", "data") from error


def _bitmaps(pixels: bytes, shape: Sequence[int]) -> Iterator[bytes]:
    """RGB images `[N, H, W, 3]` as uncompressed files."""
    if len(shape) != 4 or shape[3] != 3 or math.prod(shape) != len(pixels):
        raise _invalid(f"{len(pixels)} numbers are not pixels of the shape [N, H, W, 3]; it says {shape}.", "shape")
    size = math.prod(shape[1:])
    for start in range(0, len(pixels), size):
        file = BytesIO()
        Image.frombytes("RGB", (shape[2], shape[1]), pixels[start : start + size]).save(file, "BMP")
        yield file.getvalue()


def _outputs(outputs: Any, binary: bool) -> dict[str, bool]:
    if not isinstance(outputs, list):
        raise _invalid("'outputs' must be a list.", "outputs")
    asked: dict[str, bool] = {}
    for item in outputs:
        output = _object(item, "outputs")
        name = output.get("name")
        if not isinstance(name, str) or name not in OUTPUTS:
            message = f"There is no output {str(name)[:40]!r}; outputs are {', '.join(OUTPUTS)}."
            raise RefusedError(400, message, "parameter_invalid", "outputs")
        parameters = _object(output.get("parameters", {}), "parameters")
        asked[name] = bool(parameters.get("binary_data", binary))
    return asked or dict.fromkeys(DEFAULT_OUTPUTS, binary)


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _invalid(f"{name!r} must hold JSON objects.", name)
    return value


def _text(name: str, value: Any) -> str:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise RefusedError(400, f"{name[:40]!r} must be text or a number.", "parameter_invalid", name)


def _invalid(message: str, field: str) -> RefusedError:
    return RefusedError(400, message, "tensor_invalid", field)


def _row(verbs: Sequence[str], answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One image's answers as one, with its maps by the name of their output."""
    row = dict(answers[0])
    for verb, answer in zip(verbs, answers, strict=True):
        row[EXPLANATION if verb == "explanations" else "cam"] = answer.get("explanations", [])
    return row


def _tensor(output: str, rows: Sequence[Mapping[str, Any]]) -> tuple[bytes, list[int]]:
    """The little-endian data of an output, and its shape."""
    count = len(rows)
    match output:
        case "class" | "fit":
            words = [_word(output, row).encode() for row in rows]
            return b"".join(struct.pack("<I", len(word)) + word for word in words), [count]
        case "probabilities":
            return _floats(value for row in rows for value in row["probabilities"].values()), [count, 9]
        case "logits" | "embedding":
            return _floats(value for row in rows for value in row[output]), [count, len(rows[0][output])]
    maps = [_attribution(item) for row in rows for item in row[output]]
    if len({tuple(shape) for _, shape in maps}) > 1:
        raise _invalid("The maps have several shapes; send these images one by one.", "outputs")
    height, width = maps[0][1][-2:]
    channels = len(maps) // count if output == "cam" else math.prod(maps[0][1][:-2])
    return b"".join(data for data, _ in maps), [count, channels, height, width]


def _attribution(explanation: Mapping[str, Any]) -> tuple[bytes, list[int]]:
    if "skipped" in explanation:
        raise RefusedError(503, explanation["skipped"]["message"], explanation["skipped"]["code"])
    attribution = explanation["attribution"]
    return base64.b64decode(attribution["data"]), attribution["shape"]


def _word(output: str, row: Mapping[str, Any]) -> str:
    """An element of an output of words; empty if the model has no limits of fitness."""
    return str(row["prediction"]["code"] if output == "class" else row["fit"]["verdict"] or "")


def _floats(values: Iterator[float]) -> bytes:
    numbers = array("f", values)
    return numbers.tobytes()


def _numbers(data: bytes) -> list[float]:
    numbers = array("f")
    numbers.frombytes(data)
    return numbers.tolist()
