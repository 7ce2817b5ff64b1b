"""The images that load is made of: generated tiles, or those of a file or a folder."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 224
# Haematoxylin, eosin, stroma and slide: what a generated tile's regions are coloured with.
STAINS = np.array([(94, 60, 140), (205, 120, 170), (232, 190, 215), (242, 240, 243)], np.float32)
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}


@dataclass(frozen=True)
class Tile:
    """An image file, and a key that is the same in every process for the same bytes."""

    image: bytes

    @property
    def key(self) -> str:
        return hashlib.sha256(self.image).hexdigest()[:16]


def load_tiles(source: Path | None, count: int, seed: int) -> list[Tile]:
    """At most `count` tiles: generated where there is no source; raises `ValueError` where it holds none."""
    if source is None:
        images = [generate(seed + number) for number in range(count)]
    elif source.is_dir():
        files = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
        images = [path.read_bytes() for path in files[:count]]
    else:
        images = _from_npz(source, count, seed)
    if not images:
        raise ValueError(f"{source} holds no images")
    return [Tile(image) for image in images]


def generate(seed: int) -> bytes:
    """A tile of stained blotches with a little noise, as PNG."""
    chance = np.random.default_rng(seed)
    cells = int(chance.integers(4, 40))
    coarse = Image.fromarray(chance.integers(0, 256, (cells, cells), dtype=np.uint8))
    regions = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32) / 255
    colours = STAINS[chance.choice(len(STAINS), 2, replace=False)]
    pixels = colours[0] + regions[..., None] * (colours[1] - colours[0])
    pixels += chance.normal(0, 4, pixels.shape)
    return _png(pixels.clip(0, 255).astype(np.uint8))


def _from_npz(path: Path, count: int, seed: int) -> list[bytes]:
    """Test images of a MedMNIST file, drawn without replacement."""
    with np.load(path, allow_pickle=False) as arrays:
        if "test_images" not in arrays:
            raise ValueError(f"{path} holds no array test_images")
        images = arrays["test_images"]
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    return [_png(images[number]) for number in chosen]


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
