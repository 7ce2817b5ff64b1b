"""The gradient of a logit with respect to the network's input, forward and backward in plain tensor operations.

A runtime without automatic differentiation can then compute it. Apart from ReLU and max-pooling the network is linear:
its backward pass is its own convolutions transposed, with the same weights, and a mask at each ReLU. The result is that
of PyTorch's autograd, including the choice between equal maxima.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, max_pool2d

from handler.model.network import classify
from handler.model.resnet import BasicBlock, ResNet

# Maps the gradient of a logit with respect to a step's result to the one with respect to its operand.
Pullback = Callable[[Tensor], Tensor]
# The stem's max-pooling.
WINDOW, STRIDE, PADDING = 3, 2, 1


def logits_and_gradient(network: ResNet, inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[N, 9]` and the gradient `[N, 3, I, I]` of each row's logit `target` (int64 `[N]`).

    `network` comes from `handler.model.network.for_inference`, so its BatchNorm is folded; `inputs` are in its units.
    """
    maps, through_convolution = _convolution(network.conv1, inputs)
    maps, through_relu = _rectify(maps)
    maps, through_pool = _pool_maximum(maps)
    tape = [through_convolution, through_relu, through_pool]
    for block in network.blocks():
        maps, through_block = _block(block, maps)
        tape.append(through_block)
    cells = maps.shape[2] * maps.shape[3]
    gradient = (network.fc.weight[target] / cells)[:, :, None, None].expand_as(maps)
    for pull_back in reversed(tape):
        gradient = pull_back(gradient)
    return classify(network, maps), gradient


def _block(block: BasicBlock, maps: Tensor) -> tuple[Tensor, Pullback]:
    inner, through_first = _convolution(block.conv1, maps)
    inner, through_inner = _rectify(inner)
    outer, through_second = _convolution(block.conv2, inner)
    shortcut, through_shortcut = _shortcut(block, maps)
    result, through_outer = _rectify(outer + shortcut)

    def pull_back(gradient: Tensor) -> Tensor:
        gradient = through_outer(gradient)
        return through_first(through_inner(through_second(gradient))) + through_shortcut(gradient)

    return result, pull_back


def _shortcut(block: BasicBlock, maps: Tensor) -> tuple[Tensor, Pullback]:
    if block.downsample is None:
        return maps, _same
    return _convolution(cast("nn.Conv2d", block.downsample[0]), maps)


def _same(gradient: Tensor) -> Tensor:
    return gradient


def _convolution(layer: nn.Conv2d, maps: Tensor) -> tuple[Tensor, Pullback]:
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    padding = int(layer.padding[0])

    def pull_back(gradient: Tensor) -> Tensor:
        if stride == 1:
            # Equal to a transposed convolution, in about half the time under ONNX Runtime. OpenVINO 2026.4 gives wrong
            # values if one weight serves a convolution and a transposed one of the same shape.
            return conv2d(gradient, layer.weight.transpose(0, 1).flip(2, 3), padding=kernel - 1 - padding)
        unreached = (maps.shape[2] + 2 * padding - kernel) % stride
        return conv_transpose2d(gradient, layer.weight, None, stride, padding, output_padding=unreached)

    return layer(maps), pull_back


def _rectify(maps: Tensor) -> tuple[Tensor, Pullback]:
    result = maps.relu()
    return result, lambda gradient: torch.where(result > 0, gradient, 0)


def _pool_maximum(maps: Tensor) -> tuple[Tensor, Pullback]:
    """Max-pooling after a ReLU. A window's gradient goes to the first of its maxima, row by row.

    Operators for this exist, but do not define which of equal maxima they take.
    """

    def pull_back(gradient: Tensor) -> Tensor:
        cells = _cut_windows(maps)
        numbers = torch.arange(WINDOW * WINDOW, device=maps.device)[:, None, None]
        is_first_maximum = cells.argmax(dim=1, keepdim=True) == numbers
        shares = torch.where(is_first_maximum, gradient.reshape(-1, 1, *gradient.shape[2:]), 0)
        return _join_windows(shares, maps)

    return max_pool2d(maps, WINDOW, STRIDE, PADDING), pull_back


def _cut_windows(maps: Tensor) -> Tensor:
    """The cells of each pooling window as channels, `[N * C, 9, h, w]`.

    Cells outside the map are 0, where PyTorch ignores them. They can only equal a maximum of 0, whose gradient the ReLU
    before stops.
    """
    planes = maps.reshape(-1, 1, *maps.shape[2:])
    return conv2d(planes, _cells(maps), stride=STRIDE, padding=PADDING)


def _join_windows(cells: Tensor, maps: Tensor) -> Tensor:
    """The transpose of `_cut_windows`: adds each cell to its pixel of a map in the shape of `maps`."""
    unreached = (maps.shape[2] + 2 * PADDING - WINDOW) % STRIDE
    return conv_transpose2d(cells, _cells(maps), None, STRIDE, PADDING, output_padding=unreached).view(maps.shape)


def _cells(maps: Tensor) -> Tensor:
    """Convolution weights `[9, 1, 3, 3]`: channel k takes the k-th cell of a window, row by row."""
    count = WINDOW * WINDOW
    return torch.eye(count, dtype=maps.dtype, device=maps.device).view(count, 1, WINDOW, WINDOW)
