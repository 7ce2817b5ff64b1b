"""A small class-conditional U-Net for diffusion on 28-pixel tiles (arXiv 2006.11239, 2105.05233)."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention, silu

from handler.classes import NUM_CLASSES

# An additional class for "no class given" (classifier-free guidance, arXiv 2207.12598).
UNCONDITIONAL = NUM_CLASSES
GROUPS = 8


class UNet(nn.Module):
    """Residual blocks at sides 28, 14 and 7, with self-attention at the last: 1.8 million parameters."""

    def __init__(self, widths: tuple[int, int, int] = (40, 72, 120)) -> None:
        """`widths` are channels per level, multiples of 8."""
        super().__init__()
        high, middle, low = widths
        features = 4 * high
        self.frequencies = high
        self.time = nn.Sequential(nn.Linear(high, features), nn.SiLU(), nn.Linear(features, features))
        self.label = nn.Embedding(NUM_CLASSES + 1, features)
        self.first = nn.Conv2d(3, high, 3, padding=1)
        self.down_high = Residual(high, high, features)
        self.down_middle = Residual(high, middle, features)
        self.down_low = Residual(middle, low, features)
        self.before = Residual(low, low, features)
        self.attention = Attention(low)
        self.after = Residual(low, low, features)
        self.up_low = Residual(2 * low, low, features)
        self.up_middle = Residual(low + middle, middle, features)
        self.up_high = Residual(middle + high, high, features)
        self.last = nn.Sequential(nn.GroupNorm(GROUPS, high), nn.SiLU(), zeroed(nn.Conv2d(high, 3, 3, padding=1)))

    def forward(self, noisy: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        """The predicted velocity `[N, 3, S, S]`, S a multiple of 4.

        `noisy` is `[N, 3, S, S]`, `time` `[N]` in [0, 1], `labels` int64 `[N]` in 0..8 or `UNCONDITIONAL`.
        """
        condition = silu(self.time(wave_embedding(time, self.frequencies)) + self.label(labels))
        high = self.down_high(self.first(noisy), condition)
        middle = self.down_middle(halved(high), condition)
        low = self.down_low(halved(middle), condition)
        maps = self.after(self.attention(self.before(low, condition)), condition)
        maps = self.up_low(torch.cat([maps, low], dim=1), condition)
        maps = self.up_middle(torch.cat([doubled(maps), middle], dim=1), condition)
        maps = self.up_high(torch.cat([doubled(maps), high], dim=1), condition)
        velocity: Tensor = self.last(maps)
        return velocity


class Residual(nn.Module):
    """Two convolutions; the condition scales and shifts the maps between them."""

    def __init__(self, channels: int, width: int, features: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, width, 3, padding=1))
        self.condition = nn.Linear(features, 2 * width)
        self.norm = nn.GroupNorm(GROUPS, width)
        self.second = zeroed(nn.Conv2d(width, width, 3, padding=1))
        self.shortcut = nn.Identity() if channels == width else nn.Conv2d(channels, width, 1)

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.condition(condition)[:, :, None, None].chunk(2, dim=1)
        inner = self.norm(self.first(maps)) * (1 + scale) + shift
        result: Tensor = self.shortcut(maps) + self.second(silu(inner))
        return result


class Attention(nn.Module):
    """Self-attention over all positions of a map, with one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.projections = nn.Conv2d(width, 3 * width, 1)
        self.last = zeroed(nn.Conv2d(width, width, 1))

    def forward(self, maps: Tensor) -> Tensor:
        queries, keys, values = self.projections(self.norm(maps)).flatten(2).transpose(1, 2).chunk(3, dim=2)
        mixed = scaled_dot_product_attention(queries, keys, values)
        result: Tensor = maps + self.last(mixed.transpose(1, 2).reshape(maps.shape))
        return result


def wave_embedding(time: Tensor, size: int) -> Tensor:
    """Sines and cosines `[N, size]` of times `[N]` in [0, 1]."""
    frequencies = torch.exp(torch.linspace(0, math.log(1000), size // 2, device=time.device))
    angles = time[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def halved(maps: Tensor) -> Tensor:
    return nn.functional.avg_pool2d(maps, 2)


def doubled(maps: Tensor) -> Tensor:
    return interpolate(maps, scale_factor=2, mode="nearest")


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with zero weights, so that its block starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
