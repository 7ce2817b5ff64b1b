"""Channels that a network does not use: those whose value no tile changes."""

from typing import Any

import torch
from torch import Tensor, nn

from handler.model.preprocess import Preprocessing, network_input
from handler.model.resnet import ResNet

BATCH = 50
# A channel is dead if its values differ by less than this share of the layer's largest value. float32 rounds at 1e-7.
NEGLIGIBLE = 1e-5


class Range:
    """The lowest and the highest value of each channel over all maps `[N, C, H, W]` seen."""

    def __init__(self) -> None:
        self.lowest = torch.tensor(torch.inf)
        self.highest = torch.tensor(-torch.inf)

    def see(self, maps: Tensor) -> None:
        self.lowest = torch.minimum(self.lowest, maps.amin(dim=(0, 2, 3)))
        self.highest = torch.maximum(self.highest, maps.amax(dim=(0, 2, 3)))

    def dead(self) -> int:
        return int((self.highest - self.lowest <= NEGLIGIBLE * self.highest.max()).sum())


def dead_channels(network: ResNet, tiles: Tensor, preprocessing: Preprocessing) -> dict[str, int]:
    """How many channels of each layer of the ResNet are the same at every place of every tile.

    `tiles` is `[N, 3, S, S]` in [0, 1]. The layers are `stem` (after its ReLU) and, by torchvision's names, the eight
    residual blocks and their first convolutions (after the ReLU).
    """
    ranges = {"stem": Range()}
    handles = [network.maxpool.register_forward_pre_hook(_watch_input(ranges["stem"]))]
    for name in (f"layer{stage}.{index}" for stage in range(1, 5) for index in range(2)):
        block = network.get_submodule(name)
        inner, outer = ranges.setdefault(f"{name}.conv1", Range()), ranges.setdefault(name, Range())
        handles += [
            block.get_submodule("conv2").register_forward_pre_hook(_watch_input(inner)),
            block.register_forward_hook(_watch_output(outer)),
        ]
    try:
        with torch.inference_mode():
            for batch in tiles.split(BATCH):
                network(network_input(batch, preprocessing))
    finally:
        for handle in handles:
            handle.remove()
    return {name: found.dead() for name, found in ranges.items()}


def _watch_input(found: Range) -> Any:
    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.see(inputs[0])

    return hook


def _watch_output(found: Range) -> Any:
    def hook(_: nn.Module, __: tuple[Tensor, ...], maps: Tensor) -> None:
        found.see(maps)

    return hook
