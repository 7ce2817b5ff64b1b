"""Diffusion in continuous time: the training loss and the sampler."""

import math
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from training.unet import UNCONDITIONAL

SIDE = 28
# The share of training tiles whose class is withheld.
UNLABELLED = 0.1


def levels(time: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and noise, each `[N, 1, 1, 1]`, at times `[N]` in [0, 1]: the cosine schedule (arXiv 2102.09672)."""
    angle = time[:, None, None, None] * (math.pi / 2)
    return angle.cos(), angle.sin()


def diffusion_loss(network: nn.Module, tiles: Tensor, labels: Tensor) -> Tensor:
    """The squared error of the velocity (arXiv 2202.00512) at a random time; `tiles` are in [-1, 1]."""
    time = torch.rand(len(tiles), device=tiles.device)
    signal, noise = levels(time)
    random = torch.randn_like(tiles)
    hidden = torch.rand(len(tiles), device=tiles.device) < UNLABELLED
    labels = torch.where(hidden, UNCONDITIONAL, labels)
    predicted = network(signal * tiles + noise * random, time, labels)
    return mse_loss(predicted.float(), signal * random - noise * tiles)


@torch.inference_mode()
def sample(network: nn.Module, labels: Tensor, seed: int, steps: int = 50, guidance: float = 1.5) -> NDArray[np.uint8]:
    """Tiles uint8 `[N, 28, 28, 3]` of classes `labels`, by DDIM (arXiv 2010.02502).

    `guidance` is the guidance weight (classifier-free guidance, arXiv 2207.12598); 1 means no guidance.
    """
    random = torch.Generator().manual_seed(seed)
    tiles = torch.randn(len(labels), 3, SIDE, SIDE, generator=random)
    unlabelled = torch.full_like(labels, UNCONDITIONAL)
    times = torch.linspace(1, 0, steps + 1)
    for now, later in pairwise(times):
        time = now.expand(len(labels))
        velocity = torch.lerp(network(tiles, time, unlabelled), network(tiles, time, labels), guidance)
        signal, noise = levels(time)
        clean = (signal * tiles - noise * velocity).clamp(-1, 1)
        # The noise that leads from the clean tile to this one; at the last step none is left.
        random_part = (tiles - signal * clean) / noise
        signal, noise = levels(later.expand(len(labels)))
        tiles = signal * clean + noise * random_part
    pixels: NDArray[np.uint8] = ((clean + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return pixels
