"""Enlarges and reduces tiles, as image files often are before they reach the server."""

from itertools import product

import torch
from torch import Tensor, nn

from handler.model.preprocess import Kernel, resampling_matrix, triangle

FACTORS = (1.5, 64 / 28, 4.0, 8.0)


def box(distance: Tensor) -> Tensor:
    """Nearest neighbour when enlarging, the mean of the covered pixels when reducing."""
    return ((distance > -0.5) & (distance <= 0.5)).float()


def cubic(distance: Tensor) -> Tensor:
    """Keys' cubic convolution kernel with a = -0.5, support 2 (doi 10.1109/TASSP.1981.1163711)."""
    x = distance.abs().clamp(max=2)
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, inner, outer)


def lanczos(distance: Tensor) -> Tensor:
    """The sinc kernel with three lobes, Pillow's LANCZOS."""
    return torch.where(distance.abs() < 3, torch.sinc(distance) * torch.sinc(distance / 3), 0.0)


KERNELS: dict[str, Kernel] = {
    "box": box,
    "triangle": triangle,
    "cubic": cubic,
    "lanczos": lanczos,
}
REDUCING = ("box", "cubic", "lanczos")


def round_trip(size: int, enlarged: int, enlarge: Kernel, reduce: Kernel) -> Tensor:
    """The matrix `[size, size]` that enlarges a line of pixels and reduces it again."""
    return resampling_matrix(enlarged, size, reduce) @ resampling_matrix(size, enlarged, enlarge)


class RandomRoundTrip(nn.Module):
    """Enlarge each tile by a random factor and reduce it again, with a given probability.

    The filter that resized a tile is unknown. Training with several filters makes the model robust to it.
    """

    def __init__(self, size: int, probability: float) -> None:
        super().__init__()
        matrices = [
            round_trip(size, round(size * factor), KERNELS[enlarge], KERNELS[reduce])
            for factor, enlarge, reduce in product(FACTORS, KERNELS, REDUCING)
        ]
        self.register_buffer("bank", torch.stack([torch.eye(size), *matrices]), persistent=False)
        self.probability = probability

    def forward(self, tiles: Tensor) -> Tensor:
        """Tiles `[N, 3, S, S]` in [0, 1]."""
        count, bank = len(tiles), self.get_buffer("bank")
        choice = torch.randint(1, len(bank), (count,), device=tiles.device)
        choice *= torch.rand(count, device=tiles.device) < self.probability
        matrix = bank[choice][:, None]
        return (matrix @ tiles @ matrix.transpose(-1, -2)).clamp(0, 1)
