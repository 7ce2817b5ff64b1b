"""Mean gradients of the network along a segment of input space, from its values at the segment's ends.

A ReLU whose input moves evenly from `a` to `b` passes gradient for a share `(relu(b) - relu(a)) / (b - a)` of the
way. Backpropagation with these shares instead of the masks at one point gives multipliers whose product with `b - a`
sums to the score's change over the segment, exactly: DeepLIFT's rescale rule (Shrikumar et al., arXiv 1704.02685) with
`a` as reference. The result differs from the true mean gradient in the second order of the segment's length; the
gradient at a single point differs in the first.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from handler.model.resnet import BasicBlock, ResNet

TINY = 1e-30


def secant_forward(network: ResNet, inputs: Tensor) -> Tensor:
    """Logits `[n, 9]` whose backward pass yields, in row i, mean gradients over the segment from input i to i + 1.

    `inputs` are float64, the network may be float32. The last row, and any other that starts no segment, must get no
    gradient. The maximum is pooled before the first ReLU instead of after it. That changes no value, and the values
    pooled then move evenly along a segment, because the convolution is linear.
    """
    values = network.bn1(network.conv1(inputs.to(network.conv1.weight.dtype)))
    maps = _Rectify.apply(_MaxPool.apply(values, *_maxima(exact_stem(network, inputs))))
    for block in network.blocks():
        maps = _block(block, maps)
    result: Tensor = network.fc(maps.mean(dim=(2, 3)))
    return result


@torch.no_grad()
def exact_stem(network: ResNet, inputs: Tensor) -> Tensor:
    """The input of the stem's max-pool, `[n, 64, h, w]` in float64.

    Where a tile is smooth, neighbours differ by less than float32 resolves, and rounding would decide at each point of
    the path which of them receives the gradient. That alone changes a map by 2 to 18 % (docs/explanations.md).
    """
    stem = deepcopy(nn.Sequential(network.conv1, network.bn1)).double()
    values: Tensor = stem(inputs.double())
    return values


def _block(block: BasicBlock, maps: Tensor) -> Tensor:
    shortcut = maps if block.downsample is None else block.downsample(maps)
    inner = _Rectify.apply(block.bn1(block.conv1(maps)))
    result: Tensor = _Rectify.apply(block.bn2(block.conv2(inner)) + shortcut)
    return result


class _Rectify(torch.autograd.Function):
    """ReLU; its gradient is the mean over the segment from each row to the next."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        context.save_for_backward(values)
        return values.relu()

    @staticmethod
    def backward(context: Any, gradients: Tensor) -> Tensor:
        (start,) = context.saved_tensors
        end = _next_row(start)
        # Equal to (relu(b) - relu(a)) / (b - a) for every pair of signs, without a difference of close values.
        share = (start.relu() + end.relu()) / (start.abs() + end.abs()).clamp(min=TINY)
        return gradients * share


class _MaxPool(torch.autograd.Function):
    """The stem's max-pool. A window's gradient is split between its maxima at both ends of the segment."""

    @staticmethod
    def forward(context: Any, values: Tensor, first: Tensor, last: Tensor, share: Tensor) -> Tensor:
        context.save_for_backward(first, last, share.to(values.dtype))
        context.shape = values.shape
        return _take(values, first)

    @staticmethod
    def backward(context: Any, gradients: Tensor) -> tuple[Tensor, None, None, None]:
        first, last, share = context.saved_tensors
        result = gradients.new_zeros(context.shape).flatten(2)
        result.scatter_add_(2, first.flatten(2), (gradients * share).flatten(2))
        result.scatter_add_(2, last.flatten(2), (gradients * (1 - share)).flatten(2))
        return result.view(context.shape), None, None, None


def _maxima(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pixel that leads each window at the start of a segment, the one that leads at its end, and the share of the
    segment before the second overtakes the first."""
    maximum, first = max_pool2d(values, kernel_size=3, stride=2, padding=1, return_indices=True)
    last = _next_row(first)
    lead_at_start = maximum - _take(values, last)
    lead_at_end = _next_row(maximum) - _take(_next_row(values), first)
    return first, last, (lead_at_start + TINY) / (lead_at_start + lead_at_end + 2 * TINY)


def _take(values: Tensor, index: Tensor) -> Tensor:
    """The values at each window's pixel."""
    return values.flatten(2).gather(2, index.flatten(2)).view(index.shape)


def _next_row(rows: Tensor) -> Tensor:
    """Row i + 1 in place of row i; the last stays."""
    return torch.cat([rows[1:], rows[-1:]])
