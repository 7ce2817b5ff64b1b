"""Mean slopes of the network along a segment of input space, from its values at the segment's ends.

A ReLU whose input moves evenly from `a` to `b` passes gradient for a share `(relu(b) - relu(a)) / (b - a)` of the
way. Backpropagation with these shares in place of the masks at one point gives multipliers whose product with
`b - a` sums to the score's change over the segment, exactly: DeepLIFT's rescale rule (Shrikumar et al., arXiv
1704.02685) with `a` as reference. The true mean gradient differs in the second order of the segment's length, where
the gradient at any single point differs in the first.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

TINY = 1e-30


def secant_forward(network: ResNet, inputs: Tensor) -> Tensor:
    """Logits `[n, 9]` whose backward pass yields, in row i, mean slopes over the segment from input i to input i + 1.

    The last row, and any other that starts no segment, must get no gradient. Pooling the maximum before the first
    ReLU instead of after it changes no value, and its inputs then move evenly indeed, the convolution being linear.
    """
    maps = _Rectify.apply(_PoolMaximum.apply(network.bn1(network.conv1(inputs))))
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in layer:
            maps = _block(block, maps)
    result: Tensor = network.fc(maps.mean(dim=(2, 3)))
    return result


def _block(block: BasicBlock, maps: Tensor) -> Tensor:
    shortcut = maps if block.downsample is None else block.downsample(maps)
    inner = _Rectify.apply(block.bn1(block.conv1(maps)))
    result: Tensor = _Rectify.apply(block.bn2(block.conv2(inner)) + shortcut)
    return result


class _Rectify(torch.autograd.Function):
    """ReLU with the mean of its slope between consecutive rows."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        context.save_for_backward(values)
        return values.relu()

    @staticmethod
    def backward(context: Any, slopes: Tensor) -> Tensor:
        (start,) = context.saved_tensors
        end = _next_row(start)
        # Equal to (relu(b) - relu(a)) / (b - a) for every pair of signs, and never a difference of near values.
        share = (start.relu() + end.relu()) / (start.abs() + end.abs()).clamp(min=TINY)
        return slopes * share


class _PoolMaximum(torch.autograd.Function):
    """The stem's max-pool. A window's slope goes to the maximum at the start until the one at the end overtakes it."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        maximum, index = max_pool2d(values, kernel_size=3, stride=2, padding=1, return_indices=True)
        context.save_for_backward(values, maximum, index)
        return maximum

    @staticmethod
    def backward(context: Any, slopes: Tensor) -> Tensor:
        values, maximum, index = (item.flatten(2) for item in context.saved_tensors)
        next_index = _next_row(index)
        lead_at_start = maximum - values.gather(2, next_index)
        lead_at_end = _next_row(maximum) - _next_row(values).gather(2, index)
        share = (lead_at_start + TINY) / (lead_at_start + lead_at_end + 2 * TINY)
        flat = slopes.flatten(2)
        result = torch.zeros_like(values).scatter_add_(2, index, flat * share)
        result.scatter_add_(2, next_index, flat * (1 - share))
        return result.view(context.saved_tensors[0].shape)


def _next_row(rows: Tensor) -> Tensor:
    """Row i + 1 in place of row i; the last stays."""
    return torch.cat([rows[1:], rows[-1:]])
