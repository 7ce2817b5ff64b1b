"""Generated tiles in MedMNIST's schema: nine textures that imitate the nine tissues.

Training, export and serving can run and be tested with them if no real images are available. They say nothing about a
model's accuracy on tissue. `python -m training.synthetic --output FILE.npz` writes a data set.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handler.classes import NUM_CLASSES
from training.data import Split

Field = NDArray[np.float32]
Texture = Callable[[np.random.Generator, int], tuple[Field, Field]]


def generate(count: int, seed: int, size: int = 28) -> Split:
    """`count` tiles uint8 `[N, size, size, 3]`, with the classes in turn. The same seed gives the same tiles."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % NUM_CLASSES
    images = np.stack([tile(int(label), random, size) for label in labels])
    return Split(images, labels.astype(np.int64))


def tile(class_id: int, random: np.random.Generator, size: int = 28) -> NDArray[np.uint8]:
    """One tile `[size, size, 3]`: a nuclear and a cytoplasmic density, stained like haematoxylin and eosin."""
    nuclei, cytoplasm = TEXTURES[class_id](random, size * 2)
    stain = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]) * random.uniform(0.85, 1.15, (2, 3))
    density = nuclei[..., None] * stain[0] + cytoplasm[..., None] * stain[1]
    pixels = np.exp(-density) * 245 + random.normal(0, 3, density.shape)
    large = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return np.asarray(large.resize((size, size), Image.Resampling.BICUBIC))


def write_dataset(path: Path, per_split: tuple[int, int, int], seed: int, size: int = 28) -> None:
    """Write train, val and test splits of the given sizes, in MedMNIST's keys and types."""
    arrays = {}
    for offset, (name, count) in enumerate(zip(("train", "val", "test"), per_split, strict=True)):
        split = generate(count, seed + offset, size)
        arrays[f"{name}_images"] = split.images
        arrays[f"{name}_labels"] = split.labels.astype(np.uint8)[:, None]
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _noise(random: np.random.Generator, size: int, cells: int, stretch: int = 1) -> Field:
    """Smooth noise in [0, 1] with `cells` bumps down and `cells / stretch` across."""
    coarse = random.random((cells, max(2, cells // stretch))).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)).clip(0, 1)


def _distances(random: np.random.Generator, size: int, points: int) -> tuple[Field, Field]:
    """Distance of every pixel to the nearest and second nearest of some random points, in tile sides."""
    centres = random.random((points, 2)).astype(np.float32)
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, size, dtype=np.float32)] * 2), axis=-1)
    sorted_distances = np.sort(np.linalg.norm(grid[:, :, None] - centres, axis=-1), axis=-1)
    return sorted_distances[..., 0], sorted_distances[..., 1]


def _spots(random: np.random.Generator, size: int, points: int, radius: float) -> Field:
    nearest, _ = _distances(random, size, points)
    return (nearest < radius).astype(np.float32)


def _adipose(random: np.random.Generator, size: int) -> tuple[Field, Field]:
    nearest, second = _distances(random, size, 9)
    return np.zeros_like(nearest), (second - nearest < 0.05) * np.float32(0.5)


def _background(random: np.random.Generator, size: int) -> tuple[Field, Field]:
    return _noise(random, size, 3) * 0.03, _noise(random, size, 3) * 0.03


def _debris(random: np.random.Generator, size: int) -> tuple[Field, Field]:
    return _noise(random, size, 16) * 0.5, _noise(random, size, 8) * 0.8


def _lymphocytes(random: np.random.Generator, size: int) -> tuple[Field, Field]:
    return _spots(random, size, 110, 0.04) * 1.3 + 0.2, _noise(random, size, 6) * 0.3


def _mucus(random: np.random.Generator, size: int) -> tuple[Field, Field]:
    return _noise(random, size, 12, stretch=4) * 0.3, _noise(random, size, 10, stretch=5) * 0.1


def _fibres(random: np.random.Generator, size: int, waviness: float, nuclei: int) -> tuple[Field, Field]:
    angle = random.uniform(0, np.pi)
    axis = np.linspace(0, 1, size, dtype=np.float32)
    across = np.cos(angle) * axis[:, None] + np.sin(angle) * axis + waviness * _noise(random, size, 4)
    stripes = (0.7 + 0.3 * np.sin(across * 2 * np.pi * random.uniform(7, 10))).astype(np.float32)
    return _spots(random, size, nuclei, 0.02) * 0.8, stripes


def _muscle(random: np.random.Generator, size: int) -> tuple[Field, Field]:
    return _fibres(random, size, waviness=0.05, nuclei=12)


def _stroma(random: np.random.Generator, size: int) -> tuple[Field, Field]:
    nuclei, stripes = _fibres(random, size, waviness=0.6, nuclei=25)
    return nuclei + 0.1, stripes * 0.6


def _mucosa(random: np.random.Generator, size: int) -> tuple[Field, Field]:
    nearest, _ = _distances(random, size, 5)
    ring = ((nearest > 0.12) & (nearest < 0.17)).astype(np.float32)
    return ring + 0.15, (nearest > 0.17) * np.float32(0.6)


def _tumour(random: np.random.Generator, size: int) -> tuple[Field, Field]:
    nearest, second = _distances(random, size, 30)
    return (nearest < 0.07) * np.float32(0.9) + 0.25, (second - nearest) * 2 + 0.3


TEXTURES: tuple[Texture, ...] = (
    _adipose,
    _background,
    _debris,
    _lymphocytes,
    _mucus,
    _muscle,
    _mucosa,
    _stroma,
    _tumour,
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write generated tiles in MedMNIST's schema.")
    parser.add_argument("--output", type=Path, required=True, help="a data set, .npz")
    parser.add_argument(
        "--count",
        type=int,
        nargs=3,
        default=(900, 90, 90),
        metavar=("TRAIN", "VAL", "TEST"),
    )
    parser.add_argument("--size", type=int, default=28, help="tile side")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_dataset(arguments.output, tuple(arguments.count), arguments.seed, arguments.size)


if __name__ == "__main__":
    main()
