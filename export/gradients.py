"""The gradient of a logit with respect to the network's input, forward and backward in plain tensor operations.

A runtime without automatic differentiation can then compute it. The network is linear but for ReLU and max-pooling:
its backward pass is its own convolutions transposed, with the same weights, and a mask at each ReLU. What is written
here is what PyTorch's autograd does, the choice between equal maxima included.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, max_pool2d
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

from handler.model.network import classify

# Takes the slopes of a logit with respect to a step's result to those with respect to its operand.
Pullback = Callable[[Tensor], Tensor]
# The stem's max-pooling.
WINDOW, STRIDE, PADDING = 3, 2, 1


def logits_and_gradient(network: ResNet, inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[N, 9]` and the gradient `[N, 3, I, I]` of each row's logit `target` (int64 `[N]`).

    `network` is one of `handler.model.network.for_inference`, whose BatchNorm is folded; `inputs` are in its units.
    """
    maps, through_convolution = _convolution(network.conv1, inputs)
    maps, through_relu = _rectify(maps)
    maps, through_pool = _pool_maximum(maps)
    tape = [through_convolution, through_relu, through_pool]
    for block in (*network.layer1, *network.layer2, *network.layer3, *network.layer4):
        maps, through_block = _block(block, maps)
        tape.append(through_block)
    cells = maps.shape[2] * maps.shape[3]
    slopes = (network.fc.weight[target] / cells)[:, :, None, None].expand_as(maps)
    for pull_back in reversed(tape):
        slopes = pull_back(slopes)
    return classify(network, maps), slopes


def _block(block: BasicBlock, maps: Tensor) -> tuple[Tensor, Pullback]:
    inner, through_first = _convolution(block.conv1, maps)
    inner, through_inner = _rectify(inner)
    outer, through_second = _convolution(block.conv2, inner)
    shortcut, through_shortcut = (maps, _same) if block.downsample is None else _convolution(block.downsample[0], maps)
    result, through_outer = _rectify(outer + shortcut)

    def pull_back(slopes: Tensor) -> Tensor:
        slopes = through_outer(slopes)
        return through_first(through_inner(through_second(slopes))) + through_shortcut(slopes)

    return result, pull_back


def _same(slopes: Tensor) -> Tensor:
    return slopes


def _convolution(layer: nn.Conv2d, maps: Tensor) -> tuple[Tensor, Pullback]:
    kernel, stride = layer.kernel_size[0], layer.stride[0]
    padding = int(layer.padding[0])

    def pull_back(slopes: Tensor) -> Tensor:
        if stride == 1:
            # The same as a transposed convolution, in about half the time under ONNX Runtime; and OpenVINO 2026.4
            # gives wrong values where one weight serves a convolution and a transposed one of the same shape.
            return conv2d(slopes, layer.weight.transpose(0, 1).flip(2, 3), padding=kernel - 1 - padding)
        unreached = (maps.shape[2] + 2 * padding - kernel) % stride
        return conv_transpose2d(slopes, layer.weight, None, stride, padding, output_padding=unreached)

    return layer(maps), pull_back


def _rectify(maps: Tensor) -> tuple[Tensor, Pullback]:
    result = maps.relu()
    return result, lambda slopes: torch.where(result > 0, slopes, 0)


def _pool_maximum(maps: Tensor) -> tuple[Tensor, Pullback]:
    """Max-pooling after a ReLU. A window's slope goes to the first of its maxima, row by row.

    Operators for this exist, but leave open which of equal maxima they take. Here windows are nine channels, cut out
    by a convolution and put back by its transpose. Zeros at the border stand for what PyTorch ignores; they can only
    equal a maximum that is zero, whose slope the ReLU stops.
    """
    size = WINDOW * WINDOW
    cut = torch.eye(size, dtype=maps.dtype, device=maps.device).view(size, 1, WINDOW, WINDOW)
    number, channels, height, width = maps.shape

    def pull_back(slopes: Tensor) -> Tensor:
        planes = maps.reshape(-1, 1, height, width)
        first = conv2d(planes, cut, stride=STRIDE, padding=PADDING).argmax(dim=1, keepdim=True)
        chosen = first == torch.arange(size, device=maps.device)[:, None, None]
        shares = torch.where(chosen, slopes.reshape(-1, 1, *slopes.shape[2:]), 0)
        unreached = (height + 2 * PADDING - WINDOW) % STRIDE
        planes = conv_transpose2d(shares, cut, None, STRIDE, PADDING, output_padding=unreached)
        return planes.view(number, channels, height, width)

    return max_pool2d(maps, WINDOW, STRIDE, PADDING), pull_back
