"""The Open Inference Protocol v2 over HTTP: JSON, with Triton's binary tensors behind it."""

from collections.abc import Sequence

import orjson

from serving.gateway.open_inference import (
    OUTPUTS,
    Inference,
    elements,
    invalid,
    numbers,
    read_content,
    write_outputs,
)
from serving.gateway.payload import OCTETS
from serving.gateway.policy import JSON, RefusedError

# The JSON's length in a body that goes on with binary tensors.
HEADER_LENGTH = "Inference-Header-Content-Length"
# Bytes of an output that JSON may hold as numbers: a million floats, seven maps of three channels.
MAX_JSON = 4 * 1024**2


def read_body(body: bytes, header_length: str) -> Inference:
    """Read a request, whose JSON ends after `header_length` bytes, if given. Raises `RefusedError`."""
    end = len(body) if not header_length else _length(header_length, len(body))
    try:
        content = orjson.loads(body[:end])
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, "The body is not valid JSON.", "json_invalid", "body") from error
    return read_content(content, memoryview(body)[end:])


def write_body(inference: Inference, name: str, version: str, bodies: Sequence[bytes]) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of the response.

    `bodies` are the JSON answers to `Inference.questions`, in order.
    """
    described, tail = [], b""
    for output, item in write_outputs(inference, bodies).items():
        head = {"name": output, "datatype": OUTPUTS[output].datatype, "shape": item.shape}
        if inference.outputs[output]:
            described.append({**head, "parameters": {"binary_data_size": len(item.data)}})
            tail += item.data
        else:
            described.append({**head, "data": _values(output, item.data)})
    content = {"model_name": name, "model_version": version, "outputs": described}
    if inference.identity:
        content["id"] = inference.identity
    body = orjson.dumps(content)
    if not any(inference.outputs.values()):
        return body, {"Content-Type": JSON}
    return body + tail, {"Content-Type": OCTETS, HEADER_LENGTH: str(len(body))}


def _values(output: str, data: bytes) -> list[str] | list[float]:
    if OUTPUTS[output].datatype == "BYTES":
        return [item.decode() for item in elements(data)]
    if len(data) > MAX_JSON:
        raise invalid(f"The output {output!r} is too large for JSON; ask for it with 'binary_data'.", "outputs")
    return numbers(data)


def _length(text: str, largest: int) -> int:
    # Python refuses to convert thousands of digits.
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= largest):
        raise invalid(f"{HEADER_LENGTH} must be a number of bytes of the body.", HEADER_LENGTH)
    return int(text)
