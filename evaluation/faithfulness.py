"""Measures of an explanation that need no human judge.

None is a proof: deletion and insertion leave the data's distribution, a stable map can be wrong all the time, and a
map that changes with the weights need not follow them. So each is compared with a random map and an edge detector.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import sobel
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from handler.model.resnet import ResNet

# Probability of a class at network inputs `[n, 3, I, I]`: `[n]`.
Probability = Callable[[Tensor], Tensor]
# The parts of the network in the order in which their weights are replaced.
STAGES = ("fc", "layer4", "layer3", "layer2", "layer1", "conv1")


def cell_order(strength: Tensor, side: int) -> Tensor:
    """The cells of a `side x side` grid by falling mean strength of a map `[h, w]`: indices `[side * side]`."""
    size = strength.shape[-1]
    grid = strength[None, None].float()
    if size > side:
        grid = adaptive_avg_pool2d(grid, side)
    elif size < side:
        grid = interpolate(grid, (side, side), mode="bilinear", align_corners=False)
    return grid.flatten().argsort(descending=True, stable=True)


def replacement_curve(
    start: Tensor, end: Tensor, order: Tensor, side: int, steps: int, probability: Probability
) -> NDArray[np.float64]:
    """The probability as cells of `start` `[3, I, I]` are replaced by `end`'s in the given order: `[steps + 1]`.

    With the tile as start and a constant as end this is the deletion curve of Petsiuk et al. (arXiv 1806.07421), with a
    blurred tile as start and the tile as end the insertion curve.
    """
    counts = np.linspace(0, side * side, steps + 1).round().astype(int)
    masks = torch.zeros(steps + 1, side * side)
    for row, count in enumerate(counts):
        masks[row, order[:count]] = 1
    size = start.shape[-1]
    masks = interpolate(masks.view(-1, 1, side, side), (size, size), mode="nearest")
    return probability(torch.lerp(start[None], end[None], masks)).double().numpy()


def area_under(curve: NDArray[np.float64]) -> float:
    """The mean height of a curve with even steps, by trapezoids."""
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))


def edge_map(image: NDArray[Any]) -> Tensor:
    """Sobel's gradient magnitude of the mean colour, `[H, W]`: an explanation that ignores the model."""
    grey = image.mean(axis=2)
    return torch.from_numpy(np.hypot(sobel(grey, axis=0), sobel(grey, axis=1))).float()


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's correlation of two maps; 0 if one of them is constant, for which it is not defined."""
    first, second = one.flatten().numpy(), other.flatten().numpy()
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(spearmanr(first, second).statistic)


def randomise_from_the_top(network: ResNet, stage: int, seed: int) -> None:
    """Give the first `stage` + 1 of `STAGES` random weights, in place (Adebayo et al., arXiv 1810.03292)."""
    torch.manual_seed(seed)
    for name in STAGES[: stage + 1]:
        for module in network.get_submodule(name).modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if isinstance(module, nn.BatchNorm2d | nn.Linear):
                nn.init.zeros_(module.bias)
