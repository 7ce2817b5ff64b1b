"""Averages of weights over a run."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of all weights and buffers.

    The decay grows to `decay` as (1 + n) / (10 + n), so that the random initial weights lose their influence quickly.
    """

    @torch.no_grad()
    def average(means: Tensors, values: Tensors, count: Tensor | int) -> None:
        share = min(decay, (1 + int(count)) / (10 + int(count)))
        for mean, value in zip(means, values, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - share)
            else:
                mean.copy_(value)

    return AveragedModel(network, multi_avg_fn=average, use_buffers=True)
