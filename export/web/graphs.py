"""Both graphs for a browser: the convolutions' weights in half precision, once, in a file that the graphs share.

A graph casts its weights to float32 when it is loaded, so all arithmetic is in float32: half precision saves bytes
to download, and only the rounded weights make a difference.
"""

import math
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

CLASSIFYING, EXPLAINING, WEIGHTS = "classify.onnx", "explain.onnx", "weights.bin"
# Weights with fewer numbers stay in the graph, in float32.
MIN_NUMBERS = 8192


class SharedWeights:
    """Half-precision arrays, one after another; equal arrays have one place."""

    def __init__(self) -> None:
        self.content = b""
        self._offsets: dict[bytes, int] = {}

    def offset(self, data: bytes) -> int:
        """Where `data` begins, added at the end if it is not there."""
        if data not in self._offsets:
            self._offsets[data] = len(self.content)
            self.content += data
        return self._offsets[data]


def write_graphs(classifying: Path, explaining: Path, folder: Path) -> None:
    """Write both graphs and their weights to `folder`. Raises `ValueError` if the two hold different weights."""
    weights = SharedWeights()
    sizes = []
    for source, name in ((classifying, CLASSIFYING), (explaining, EXPLAINING)):
        model = onnx.load(source)
        _halve_weights(model, weights)
        onnx.save(model, folder / name)
        sizes.append(len(weights.content))
    if sizes[0] != sizes[1]:
        raise ValueError(f"{classifying} and {explaining} hold different weights")
    (folder / WEIGHTS).write_bytes(weights.content)


def _halve_weights(model: ModelProto, weights: SharedWeights) -> None:
    """Replace each large convolution's weights by a reference to `weights` and a cast to float32."""
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if len(tensor.dims) < 4 or math.prod(tensor.dims) <= MIN_NUMBERS or tensor.data_type != TensorProto.FLOAT:
            continue
        name = tensor.name
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(_reference(f"{name}.half", half, weights))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _reference(name: str, values: NDArray[np.float16], weights: SharedWeights) -> TensorProto:
    data = values.astype("<f2").tobytes()
    tensor = TensorProto(name=name, dims=values.shape, data_type=TensorProto.FLOAT16)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS), ("offset", weights.offset(data)), ("length", len(data))):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
