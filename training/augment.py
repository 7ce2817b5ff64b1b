"""Augmentation as batched tensor operations on canonical tiles, on the tiles' device.

All operations act on float `[N, 3, S, S]` in [0, 1] before the enlargement to the input size, so their cost does
not grow with the input. Geometry and colour are separate: a teacher gets the tile after geometry, a student after
both.
"""

import kornia.augmentation as K
import torch
from torch import Tensor, nn

from training.recipe import Recipe
from training.resample import RandomRoundTrip

# Ruifrok and Johnston's stain vectors (haematoxylin, eosin, DAB) in optical density, PMID 11531144.
STAINS = torch.tensor([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])


class StainJitter(nn.Module):
    """Scale and shift each tile's stain concentrations (Tellez et al., arXiv 1902.06543).

    Concentrations are multiplied by 1 + U(-strength, strength) and shifted by U(-strength, strength) / 10.
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        # A copy, because weight averaging also writes into buffers.
        self.register_buffer("to_density", STAINS.clone(), persistent=False)
        self.register_buffer("to_stain", torch.linalg.inv(STAINS), persistent=False)

    def forward(self, tiles: Tensor) -> Tensor:
        density = -torch.log(tiles.clamp(min=1e-3))
        stains = torch.einsum("nchw,cs->nshw", density, self.get_buffer("to_stain"))
        gain = 1 + self._uniform(tiles)
        shift = self._uniform(tiles) / 10
        density = torch.einsum("nshw,sc->nchw", stains * gain + shift, self.get_buffer("to_density"))
        return torch.exp(-density).clamp(0, 1)

    def _uniform(self, tiles: Tensor) -> Tensor:
        return (torch.rand(len(tiles), 3, 1, 1, device=tiles.device) * 2 - 1) * self.strength


class ChannelJitter(nn.Module):
    """A gain of 1 + U(-strength, strength) and a shift of U(-strength, strength) per channel and tile."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, tiles: Tensor) -> Tensor:
        noise = (torch.rand(2, len(tiles), 3, 1, 1, device=tiles.device) * 2 - 1) * self.strength
        return (tiles * (1 + noise[0]) + noise[1]).clamp(0, 1)


def of_recipe(recipe: Recipe, tile_size: int) -> tuple[nn.Module, nn.Module]:
    """Geometry and colour of a recipe's `augmentation`."""
    if recipe.augmentation == "none":
        return nn.Identity(), nn.Identity()
    if recipe.augmentation == "classic":
        return classic_geometry(), classic_colour()
    return strong_geometry(), strong_colour(tile_size, recipe.blurred, recipe.compressed)


def classic_geometry() -> nn.Module:
    return nn.Sequential(K.RandomHorizontalFlip(p=0.5), K.RandomRotation(10.0, p=1.0))


def classic_colour() -> nn.Module:
    return K.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, p=1.0)


def strong_geometry() -> nn.Module:
    """Dihedral flips, and for some tiles a small rotation with zoom and translation."""
    return nn.Sequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomVerticalFlip(p=0.5),
        K.RandomRotation90(times=(0, 3), p=1.0),
        K.RandomAffine(
            15.0,
            translate=(0.1, 0.1),
            scale=(0.85, 1.25),
            padding_mode="reflection",
            p=0.3,
        ),
    )


def strong_colour(tile_size: int, blurred: float, compressed: float) -> nn.Module:
    """Resizing, stain, colour, blur, noise and JPEG: the differences between scanners, sites and files.

    `blurred` and `compressed` are the shares of tiles that get blur and JPEG.
    """
    return nn.Sequential(
        RandomRoundTrip(tile_size, probability=0.3),
        StainJitter(0.25),
        ChannelJitter(0.06),
        K.ColorJitter(brightness=0.2, contrast=0.25, saturation=0.3, hue=0.04, p=0.6),
        K.RandomGaussianBlur((7, 7), (0.2, 1.6), p=blurred),
        K.RandomGaussianNoise(std=0.025, p=0.2),
        K.RandomJPEG((25.0, 95.0), p=compressed),
    )


def mix(tiles: Tensor, labels: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """Blend tiles with shuffled ones (mixup, arXiv 1710.09412). The share is drawn from U(0, 1).

    `labels` are class probabilities `[N, 9]` and are blended alike. Each tile is mixed with the given probability.
    """
    count = len(tiles)
    chosen = torch.rand(count, device=tiles.device) < probability
    share = torch.where(chosen, torch.rand(count, device=tiles.device), 1.0)
    partner = torch.randperm(count, device=tiles.device)
    mixed = torch.lerp(tiles[partner], tiles, share[:, None, None, None])
    return mixed, torch.lerp(labels[partner], labels, share[:, None])
