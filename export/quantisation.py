"""The network in int8: weights by channel, and the inputs of its convolutions in fixed ranges."""

from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper, numpy_helper

from export.ranges import Ranges

# Images unlike tissue exceed the ranges of the training tiles. So many times the range keeps their logits, and costs
# tissue no more than a rounding.
HEADROOM = 1.5


def write_int8(source: Path, ranges: Ranges, path: Path) -> None:
    """Quantise a file of the network (QDQ; Jacob et al., arXiv 1712.05877).

    Every convolution but the first reads uint8 and has weights in int8. The first, the sums, the biases and the feature
    map keep their float32.
    """
    model = onnx.load(source)
    quantiser = _Quantiser(model.graph)
    _, *convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    for node in convolutions:
        name = node.input[1].removeprefix("network.").removesuffix(".weight")
        quantiser.quantise(node, HEADROOM * ranges.maxima[name])
    quantiser.apply()
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


class _Quantiser:
    """Collects the nodes to add to a graph, by the node before which each belongs."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self._weights = {item.name: item for item in graph.initializer}
        self._before: dict[str, list[NodeProto]] = {}
        self._quantised: dict[str, str] = {}

    def quantise(self, node: NodeProto, maximum: float) -> None:
        """Let a convolution read its input in 256 steps from 0 to `maximum`, and its weights in 255."""
        inputs, weights = node.input[:2]
        if inputs not in self._quantised:
            self._quantised[inputs] = self._quantise_inputs(node, inputs, maximum)
        node.input[0] = self._quantised[inputs]
        self._quantise_weights(node, weights)

    def apply(self) -> None:
        """Put the added nodes into the graph."""
        nodes = [item for node in self._graph.node for item in (*self._before.get(node.name, ()), node)]
        del self._graph.node[:]
        self._graph.node.extend(nodes)

    def _quantise_inputs(self, node: NodeProto, name: str, maximum: float) -> str:
        constants = self._constants(name, np.array(maximum / 255, np.float32), np.array(0, np.uint8))
        self._add(node, helper.make_node("QuantizeLinear", [name, *constants], [f"{name}_uint8"]))
        self._add(node, helper.make_node("DequantizeLinear", [f"{name}_uint8", *constants], [f"{name}_rounded"]))
        return f"{name}_rounded"

    def _quantise_weights(self, node: NodeProto, name: str) -> None:
        kernels = numpy_helper.to_array(self._weights[name])
        largest = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
        scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
        rounded = np.round(kernels / scales).astype(np.int8)
        self._weights[name].CopyFrom(numpy_helper.from_array(rounded, f"{name}_int8"))
        constants = self._constants(name, scales.ravel(), np.zeros(len(scales), np.int8))
        self._add(node, helper.make_node("DequantizeLinear", [f"{name}_int8", *constants], [name], axis=0))

    def _add(self, node: NodeProto, added: NodeProto) -> None:
        self._before.setdefault(node.name, []).append(added)

    def _constants(self, name: str, scale: np.ndarray, zero: np.ndarray) -> list[str]:
        named = {f"{name}_scale": scale, f"{name}_zero": zero}
        self._graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in named.items())
        return list(named)
