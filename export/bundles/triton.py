"""For Triton Inference Server: a model repository around the ONNX files, for its ONNX Runtime backend.

Names, types and shapes in `config.pbtxt` are read from the files. Triton refuses tensors without axes in models that it
does not batch, so `n_steps` of the explaining model gets an axis.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper

from export.archive import MODEL_NAME
from export.bundles.documents import write_documents
from export.bundles.source import Source
from handler.classes import CODES
from serving.gateway.payload import MAX_IMAGES

LABELS = "labels.txt"
# Microseconds that a request waits for others, as in config.properties.
MAX_QUEUE_DELAY = 1000
TYPES: dict[int, str] = {
    TensorProto.UINT8: "TYPE_UINT8",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.FLOAT: "TYPE_FP32",
}


def write_triton(source: Source, folder: Path) -> None:
    """Write a model repository."""
    classifying, explaining = folder / MODEL_NAME, folder / f"{MODEL_NAME}_explain"
    for model in (classifying, explaining):
        (model / "1").mkdir(parents=True)
    shutil.copy(source.classifying, classifying / "1" / "model.onnx")
    (classifying / LABELS).write_text("".join(f"{code}\n" for code in CODES))
    (classifying / "config.pbtxt").write_text(batched_config(onnx.load(source.classifying)))
    scalar_free = with_axis(onnx.load(source.explaining), "n_steps")
    onnx.save(scalar_free, explaining / "1" / "model.onnx")
    (explaining / "config.pbtxt").write_text(plain_config(scalar_free))
    write_documents(source, folder, "triton", {"batch": MAX_IMAGES})


def batched_config(model: ModelProto) -> str:
    """The configuration of the classifying model, whose tensors all begin with the axis of the batch."""
    graph = model.graph
    return _config(
        MODEL_NAME,
        MAX_IMAGES,
        _tensors("input", (_tensor(item, _axes(item)[1:]) for item in graph.input)),
        _tensors("output", (_tensor(item, _axes(item)[1:]) for item in graph.output)),
        f"dynamic_batching {{ max_queue_delay_microseconds: {MAX_QUEUE_DELAY} }}\n",
    )


def plain_config(model: ModelProto) -> str:
    """The configuration of the explaining model, whose requests Triton does not join."""
    graph = model.graph
    return _config(
        f"{MODEL_NAME}_explain",
        0,
        _tensors("input", (_tensor(item, _axes(item)) for item in graph.input)),
        _tensors("output", (_tensor(item, _axes(item)) for item in graph.output)),
    )


def with_axis(model: ModelProto, name: str) -> ModelProto:
    """The same model, but its scalar input `name` has the shape `[1]`."""
    scalar = f"{name}_scalar"
    for graph in _graphs(model.graph):
        for node in graph.node:
            node.input[:] = [scalar if item == name else item for item in node.input]
    (declared,) = [item for item in model.graph.input if item.name == name]
    declared.CopyFrom(helper.make_tensor_value_info(name, declared.type.tensor_type.elem_type, [1]))
    model.graph.node.insert(0, helper.make_node("Squeeze", [name], [scalar], name=f"{name}_squeeze"))
    onnx.checker.check_model(model, full_check=True)
    return model


def _graphs(graph: GraphProto) -> Iterable[GraphProto]:
    """A graph and those inside it, such as the bodies of loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _config(name: str, max_batch_size: int, *parts: str) -> str:
    head = f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: {max_batch_size}\n'
    return head + "".join(parts)


def _tensors(kind: str, tensors: Iterable[str]) -> str:
    return f"{kind} [\n" + ",\n".join(f"  {{ {tensor} }}" for tensor in tensors) + "\n]\n"


def _tensor(item: ValueInfoProto, axes: list[int]) -> str:
    """One input or output; `axes` without that of the batch, if Triton batches."""
    # A number for each image: Triton's tensors have an axis at least, the file's has none.
    shape = f"dims: {axes}" if axes else "dims: [1], reshape: { shape: [] }"
    labels = f', label_filename: "{LABELS}"' if item.name == "probabilities" else ""
    return f'name: "{item.name}", data_type: {TYPES[item.type.tensor_type.elem_type]}, {shape}{labels}'


def _axes(item: ValueInfoProto) -> list[int]:
    """Sizes; -1 is any."""
    axes = item.type.tensor_type.shape.dim
    return [axis.dim_value if axis.HasField("dim_value") else -1 for axis in axes]
