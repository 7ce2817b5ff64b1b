"""The network in int8, beside PyTorch's own rounding of the same convolutions."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from export.quantisation import HEADROOM, write_int8
from export.ranges import Ranges, RangesError, measure_ranges, read_ranges
from handler.model.backends import INPUT, NETWORK_INT8, NETWORK_ONNX
from handler.model.checkpoint import Model
from handler.model.network import feature_map
from handler.model.preprocess import preprocess
from handler.model.resnet import ResNet
from tests.conftest import Pixels
from training.checkpoint import SHIPPED, write_json


@pytest.fixture(scope="module")
def ranges(model: Model) -> Ranges:
    ranges = read_ranges(SHIPPED, model.digest)
    assert ranges is not None
    return ranges


def convolutions(network: ResNet) -> dict[str, nn.Conv2d]:
    return {name: item for name, item in network.named_modules() if isinstance(item, nn.Conv2d)}


def block_outputs(path: Path, inputs: Tensor) -> list[Tensor]:
    """What the eight blocks return, in ONNX Runtime without a fusion, so that each node rounds as it says."""
    model = onnx.load(path)
    sums = {node.output[0] for node in model.graph.node if node.op_type == "Add"}
    names = [node.output[0] for node in model.graph.node if node.op_type == "Relu" and node.input[0] in sums]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(np.asarray(values)) for values in session.run(names, {INPUT: inputs.numpy()})]


def block_outputs_in_pytorch(network: ResNet, inputs: Tensor) -> list[Tensor]:
    outputs: list[Tensor] = []
    handles = [
        block.register_forward_hook(lambda _, __, output: outputs.append(output.clone())) for block in network.blocks()
    ]
    with torch.no_grad():
        feature_map(network, inputs)
    for handle in handles:
        handle.remove()
    return outputs


def rounded_by_pytorch(model: Model, ranges: Ranges) -> ResNet:
    """The network with PyTorch's fake quantisation of all convolutions but the first."""
    network = deepcopy(model.network)
    for name, convolution in list(convolutions(network).items())[1:]:
        largest = convolution.weight.abs().amax(dim=(1, 2, 3))
        zeros = torch.zeros(len(largest), dtype=torch.int32)
        convolution.weight.data = torch.fake_quantize_per_channel_affine(
            convolution.weight, largest / 127, zeros, 0, -127, 127
        )
        scale = HEADROOM * ranges.maxima[name] / 255

        def round_inputs(_: nn.Module, inputs: tuple[Tensor], scale: float = scale) -> tuple[Tensor]:
            return (torch.fake_quantize_per_tensor_affine(inputs[0], scale, 0, 0, 255),)

        convolution.register_forward_pre_hook(round_inputs)
    return network


def test_the_int8_network_rounds_as_pytorch_does(
    model: Model, ranges: Ranges, engine_files: Path, tiles: Pixels
) -> None:
    inputs = preprocess([torch.from_numpy(tile) for tile in tiles[:4]], model.preprocessing).contiguous()
    found = block_outputs(engine_files / NETWORK_INT8, inputs)
    expected = block_outputs_in_pytorch(rounded_by_pytorch(model, ranges), inputs)
    exact = block_outputs_in_pytorch(model.network, inputs)
    # In the same arithmetic, a sum in another order may still fall on the other side of a rounding: rarely in the first
    # block, but from there the two diverge.
    shares = [float((a - b).norm() / (c - b).norm()) for a, b, c in zip(found, expected, exact, strict=True)]
    assert len(shares) == 8
    assert shares[0] < 0.15
    assert max(shares) < 0.8
    assert (exact[-1] - found[-1]).norm() < 0.1 * exact[-1].norm()


def test_every_convolution_but_the_first_reads_bytes(engine_files: Path) -> None:
    graph = onnx.load(engine_files / NETWORK_INT8).graph
    types = {item.name: item.data_type for item in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    first, *others = [node for node in graph.node if node.op_type == "Conv"]
    assert first.input[0] == INPUT
    assert types[first.input[1]] == onnx.TensorProto.FLOAT
    assert len(others) == 19
    for node in others:
        inputs, weights = (made_by[name] for name in node.input[:2])
        assert made_by[inputs.input[0]].op_type == "QuantizeLinear"
        assert types[inputs.input[2]] == onnx.TensorProto.UINT8
        assert types[weights.input[0]] == onnx.TensorProto.INT8
    assert (engine_files / NETWORK_INT8).stat().st_size < (engine_files / NETWORK_ONNX).stat().st_size / 3.5


def test_a_channel_without_weights_stays_empty(ranges: Ranges, engine_files: Path, tmp_path: Path) -> None:
    source = onnx.load(engine_files / NETWORK_ONNX)
    name = next(node for node in source.graph.node if node.op_type == "Conv" and node.input[0] != INPUT).input[1]
    tensor = next(item for item in source.graph.initializer if item.name == name)
    kernels = onnx.numpy_helper.to_array(tensor).copy()
    kernels[3] = 0
    tensor.CopyFrom(onnx.numpy_helper.from_array(kernels, name))
    onnx.save(source, tmp_path / NETWORK_ONNX)
    write_int8(tmp_path / NETWORK_ONNX, ranges, tmp_path / NETWORK_INT8)
    values = {
        item.name: onnx.numpy_helper.to_array(item) for item in onnx.load(tmp_path / NETWORK_INT8).graph.initializer
    }
    assert not values[f"{name}_int8"][3].any()
    assert all(np.isfinite(values[f"{name}_scale"]))


def test_ranges_are_the_largest_inputs_of_the_convolutions(model: Model, tiles: Pixels) -> None:
    found = measure_ranges(model, tiles[:3])
    assert (found.digest, found.tiles) == (model.digest, 3)
    inputs = preprocess([torch.from_numpy(tile) for tile in tiles[:3]], model.preprocessing)
    network = model.network
    with torch.no_grad():
        stem = network.maxpool(network.relu(network.conv1(inputs)))
        last = network.layer3(network.layer2(network.layer1(stem)))
    # The shifted tiles can only add to them.
    assert found.maxima["layer1.0.conv1"] >= float(stem.max())
    assert found.maxima["layer4.0.conv1"] == found.maxima["layer4.0.downsample.0"] >= float(last.max())
    assert set(found.maxima) == set(list(convolutions(network))[1:])
    assert not any(convolution._forward_pre_hooks for convolution in convolutions(network).values())


def test_ranges_of_other_weights_are_refused(ranges: Ranges, model: Model, tmp_path: Path) -> None:
    assert read_ranges(tmp_path, model.digest) is None
    other = replace(ranges, digest="0" * 64)
    write_json(tmp_path / "pathmnist_ranges.json", {"digest": other.digest, "tiles": other.tiles, "maxima": {}})
    with pytest.raises(RangesError, match="of other weights"):
        read_ranges(tmp_path, model.digest)
