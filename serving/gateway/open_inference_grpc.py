"""The Open Inference Protocol v2 over gRPC: its messages, compiled from open_inference.proto when this is imported."""

from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from serving.gateway.open_inference import (
    OUTPUTS,
    Inference,
    Output,
    elements,
    invalid,
    joined,
    numbers,
    read_content,
    write_outputs,
)

messages, services = grpc.protos_and_services("serving/gateway/open_inference.proto")


def read_message(request: Any) -> Inference:
    """Read a `ModelInferRequest`. Outputs are raw if the input is and nothing else is asked. Raises `RefusedError`."""
    raw = request.raw_input_contents
    if raw and any(tensor.HasField("contents") for tensor in request.inputs):
        raise invalid("The input is given twice, raw and typed.", "raw_input_contents")
    tail = b"".join(raw) if raw else b"".join(_data(tensor) for tensor in request.inputs)
    size = {"binary_data_size": len(tail)}
    content = {
        "id": request.id,
        "parameters": _values(request.parameters),
        "inputs": [
            {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape), "parameters": size}
            for tensor in request.inputs
        ],
        "outputs": [{"name": output.name, "parameters": _values(output.parameters)} for output in request.outputs],
    }
    return read_content(content, memoryview(tail), binary=bool(raw))


def write_message(inference: Inference, name: str, version: str, bodies: Sequence[bytes]) -> Any:
    """The `ModelInferResponse`. The protocol allows raw data for all outputs or for none.

    `bodies` are the JSON answers to `Inference.questions`, in order.
    """
    response = messages.ModelInferResponse(model_name=name, model_version=version, id=inference.identity)
    raw = any(inference.outputs.values())
    for output, item in write_outputs(inference, bodies).items():
        tensor = response.outputs.add(name=output, datatype=OUTPUTS[output].datatype, shape=item.shape)
        if raw:
            response.raw_output_contents.append(item.data)
        else:
            _fill(tensor.contents, output, item)
    return response


def _data(tensor: Any) -> bytes:
    """Typed contents as binary data; nothing for a type that no input has."""
    if tensor.datatype == "BYTES":
        return joined(tensor.contents.bytes_contents)
    try:
        return bytes(tensor.contents.uint_contents)
    except ValueError as error:
        raise invalid("'contents' must be numbers from 0 to 255.", "contents") from error


def _fill(contents: Any, output: str, item: Output) -> None:
    if OUTPUTS[output].datatype == "BYTES":
        contents.bytes_contents.extend(elements(item.data))
    else:
        contents.fp32_contents.extend(numbers(item.data))


def _values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as plain values; one without a value is None."""
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "", None) for name, value in parameters.items()
    }
