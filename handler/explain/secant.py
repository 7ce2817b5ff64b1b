"""Mean slopes of the network along a segment of input space, from its values at the segment's ends.

A ReLU whose input moves evenly from `a` to `b` passes gradient for a share `(relu(b) - relu(a)) / (b - a)` of the
way. Backpropagation with these shares in place of the masks at one point gives multipliers whose product with
`b - a` sums to the score's change over the segment, exactly: DeepLIFT's rescale rule (Shrikumar et al., arXiv
1704.02685) with `a` as reference. The true mean gradient differs in the second order of the segment's length, where
the gradient at any single point differs in the first.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

TINY = 1e-30


def secant_forward(network: ResNet, inputs: Tensor) -> Tensor:
    """Logits `[n, 9]` whose backward pass yields, in row i, mean slopes over the segment from input i to input i + 1.

    `inputs` are float64, the network may be float32. The last row, and any other that starts no segment, must get no
    gradient. Pooling the maximum before the first ReLU instead of after it changes no value, and its inputs then move
    evenly indeed, the convolution being linear.
    """
    values = network.bn1(network.conv1(inputs.to(network.conv1.weight.dtype)))
    maps = _Rectify.apply(_PoolMaximum.apply(values, exact_stem(network, inputs)))
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in layer:
            maps = _block(block, maps)
    result: Tensor = network.fc(maps.mean(dim=(2, 3)))
    return result


@torch.no_grad()
def exact_stem(network: ResNet, inputs: Tensor) -> Tensor:
    """What the stem's max-pool receives, `[n, 64, h, w]` in float64.

    Where a tile is smooth, neighbours differ by less than float32 resolves, and rounding would choose at every point
    anew which of them receives the slope. That alone changes a map by 2 to 18 % (docs/explanations.md).
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
    """The stem's max-pool. A window's slope goes to the maximum at the start until the one at the end overtakes it.

    `exact` are the same values in float64, which decide.
    """

    @staticmethod
    def forward(context: Any, values: Tensor, exact: Tensor) -> Tensor:
        maximum, index = max_pool2d(exact, kernel_size=3, stride=2, padding=1, return_indices=True)
        flat, maximum, index = exact.flatten(2), maximum.flatten(2), index.flatten(2)
        next_index = _next_row(index)
        lead_at_start = maximum - flat.gather(2, next_index)
        lead_at_end = _next_row(maximum) - _next_row(flat).gather(2, index)
        share = (lead_at_start + TINY) / (lead_at_start + lead_at_end + 2 * TINY)
        context.save_for_backward(index, next_index, share.to(values.dtype))
        context.shape = values.shape
        pooled = values.flatten(2).gather(2, index)
        return pooled.unflatten(2, [(size + 1) // 2 for size in values.shape[2:]])

    @staticmethod
    def backward(context: Any, slopes: Tensor) -> tuple[Tensor, None]:
        index, next_index, share = context.saved_tensors
        flat = slopes.flatten(2)
        result = flat.new_zeros(context.shape).flatten(2)
        result.scatter_add_(2, index, flat * share)
        result.scatter_add_(2, next_index, flat * (1 - share))
        return result.view(context.shape), None


def _next_row(rows: Tensor) -> Tensor:
    """Row i + 1 in place of row i; the last stays."""
    return torch.cat([rows[1:], rows[-1:]])
