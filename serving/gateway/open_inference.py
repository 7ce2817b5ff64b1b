"""The Open Inference Protocol v2: tensors to images and options, and answers to tensors.

The protocol is KServe's (github.com/kserve/open-inference-protocol). open_inference_http.py and open_inference_grpc.py
read and write its two forms.
"""

import base64
import math
import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import orjson
from PIL import Image

from serving.gateway.answer import Question
from serving.gateway.payload import MAX_IMAGES, Payload
from serving.gateway.policy import RefusedError

INPUT = "image"
EXPLANATION = "explanation"
# Parameters of a request that concern its form; MLServer's codecs add the second.
NO_OPTIONS = ("binary_data_output", "content_type")


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
class Output:
    """An output's little-endian data, and its shape."""

    data: bytes
    shape: tuple[int, ...]


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


def read_content(content: Any, tail: memoryview, binary: bool = False) -> Inference:
    """Read a request: its JSON, and the binary data of its input, if any. Raises `RefusedError`.

    `binary` says whether outputs are binary if the request does not say it.
    """
    if not isinstance(content, dict):
        raise invalid("The body must be a JSON object.", "body")
    parameters = _object(content.get("parameters", {}), "parameters")
    images = _images(content.get("inputs"), tail)
    outputs = _outputs(content.get("outputs") or [], bool(parameters.get("binary_data_output", binary)))
    options = {name: _text(name, value) for name, value in parameters.items() if name not in NO_OPTIONS}
    if (others := options.keys() - IMAGE_PARAMETERS) and EXPLANATION not in outputs:
        name = min(others)
        raise RefusedError(400, f"{name!r} has no meaning without the output 'explanation'.", "option_misplaced", name)
    if "," in options.get("method", "") or options.get("target") == "all":
        raise invalid("The output 'explanation' holds one map of one method for each image.", "parameters")
    return Inference(_text("id", content.get("id", "")), images, outputs, options)


def write_outputs(inference: Inference, bodies: Sequence[bytes]) -> dict[str, Output]:
    """The outputs by name. `bodies` are the JSON answers to `Inference.questions`, in order."""
    answers = [orjson.loads(body) for body in bodies]
    verbs = list(inference.verbs)
    starts = range(0, len(answers), len(verbs))
    rows = [_row(verbs, answers[start : start + len(verbs)]) for start in starts]
    return {output: _output(output, rows) for output in inference.outputs}


def elements(data: memoryview | bytes) -> Iterator[bytes]:
    """The elements of binary data of the type BYTES: each has four bytes of length before it."""
    position = 0
    while position < len(data):
        if position + 4 > len(data):
            raise invalid("The binary data ends within a length.", "data")
        (length,) = struct.unpack_from("<I", data, position)
        position += 4
        if position + length > len(data):
            raise invalid("The binary data ends within an element.", "data")
        yield bytes(data[position : position + length])
        position += length


def joined(items: Iterable[bytes]) -> bytes:
    """Binary data of the type BYTES."""
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def numbers(data: bytes) -> list[float]:
    """Binary data of the type FP32 as numbers."""
    values = array("f")
    values.frombytes(data)
    return values.tolist()


def invalid(message: str, field: str) -> RefusedError:
    """The error of a request that breaks the protocol."""
    return RefusedError(400, message, "tensor_invalid", field)


def _images(inputs: Any, tail: memoryview) -> tuple[bytes, ...]:
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise invalid(f"The request needs one input, {INPUT!r}.", "inputs")
    tensor = _object(inputs[0], "inputs")
    if tensor.get("name") != INPUT:
        raise invalid(f"The input's name is {INPUT!r}.", "inputs")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not shape or not all(type(side) is int and side > 0 for side in shape):
        raise invalid("The input's shape must be a list of positive numbers.", "shape")
    if shape[0] > MAX_IMAGES:
        raise RefusedError(400, f"A request has at most {MAX_IMAGES} images.", "images_invalid", "shape")
    size = _object(tensor.get("parameters", {}), "parameters").get("binary_data_size")
    if size is not None and size != len(tail):
        raise invalid("'binary_data_size' is not the number of bytes behind the JSON.", "binary_data_size")
    match tensor.get("datatype"):
        case "BYTES":
            files = _files(tensor.get("data")) if size is None else tuple(elements(tail))
            # MLServer's codecs send strings as one column.
            if shape not in ([len(files)], [len(files), 1]):
                raise invalid(f"The shape says {shape}, the data holds {len(files)} images.", "shape")
            return files
        case "UINT8":
            pixels = _pixels(tensor.get("data")) if size is None else bytes(tail)
            return tuple(_bitmaps(pixels, shape))
    raise invalid(f"The input's datatype is BYTES or UINT8, not {str(tensor.get('datatype'))[:20]!r}.", "datatype")


def _files(data: Any) -> tuple[bytes, ...]:
    """Image files in JSON: base64, because JSON holds no bytes."""
    if not isinstance(data, list) or not all(isinstance(item, str) for item in data):
        raise invalid("'data' must be a list of base64 strings.", "data")
    try:
        return tuple(base64.b64decode(item, validate=True) for item in data)
    except ValueError as error:
        raise RefusedError(400, "'data' is not valid base64.", "base64_invalid", "data") from error


def _pixels(data: Any) -> bytes:
    """Numbers in nested or flat lists."""
    try:
        while data and isinstance(data[0], list):
            data = [value for part in data for value in part]
        return bytes(data)
    except (TypeError, ValueError, KeyError) as error:
        raise invalid("'data' must be numbers from 0 to 255.", "data") from error


def _bitmaps(pixels: bytes, shape: Sequence[int]) -> Iterator[bytes]:
    """RGB images `[N, H, W, 3]` as uncompressed files."""
    if len(shape) != 4 or shape[3] != 3 or math.prod(shape) != len(pixels):
        raise invalid(f"{len(pixels)} numbers are not pixels of the shape [N, H, W, 3]; it says {shape}.", "shape")
    size = math.prod(shape[1:])
    for start in range(0, len(pixels), size):
        file = BytesIO()
        Image.frombytes("RGB", (shape[2], shape[1]), pixels[start : start + size]).save(file, "BMP")
        yield file.getvalue()


def _outputs(outputs: Any, binary: bool) -> dict[str, bool]:
    if not isinstance(outputs, list):
        raise invalid("'outputs' must be a list.", "outputs")
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
        raise invalid(f"{name!r} must hold JSON objects.", name)
    return value


def _text(name: str, value: Any) -> str:
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise RefusedError(400, f"{name[:40]!r} must be text or a number.", "parameter_invalid", name)


def _row(verbs: Sequence[str], answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One image's answers as one, with its maps by the name of their output."""
    row = dict(answers[0])
    for verb, answer in zip(verbs, answers, strict=True):
        row[EXPLANATION if verb == "explanations" else "cam"] = answer.get("explanations", [])
    return row


def _output(output: str, rows: Sequence[Mapping[str, Any]]) -> Output:
    count = len(rows)
    match output:
        case "class" | "fit":
            return Output(joined(_word(output, row).encode() for row in rows), (count,))
        case "probabilities":
            return Output(_floats(value for row in rows for value in row["probabilities"].values()), (count, 9))
        case "logits" | "embedding":
            return Output(_floats(value for row in rows for value in row[output]), (count, len(rows[0][output])))
    maps = [_attribution(item) for row in rows for item in row[output]]
    if len({tuple(shape) for _, shape in maps}) > 1:
        raise invalid("The maps have several shapes; send these images one by one.", "outputs")
    height, width = maps[0][1][-2:]
    channels = len(maps) // count if output == "cam" else math.prod(maps[0][1][:-2])
    return Output(b"".join(data for data, _ in maps), (count, channels, height, width))


def _attribution(explanation: Mapping[str, Any]) -> tuple[bytes, list[int]]:
    if "skipped" in explanation:
        raise RefusedError(503, explanation["skipped"]["message"], explanation["skipped"]["code"])
    attribution = explanation["attribution"]
    return base64.b64decode(attribution["data"]), attribution["shape"]


def _word(output: str, row: Mapping[str, Any]) -> str:
    """An element of an output of words; empty if the model has no limits of fitness."""
    return str(row["prediction"]["code"] if output == "class" else row["fit"]["verdict"] or "")


def _floats(values: Iterator[float]) -> bytes:
    return array("f", values).tobytes()
