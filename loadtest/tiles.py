"""The images of a load test: generated tiles, or tiles from a file or a folder."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

SIDE = 224
# Colours of a generated tile's regions: haematoxylin, eosin, stroma and slide.
STAINS = np.array([(94, 60, 140), (205, 120, 170), (232, 190, 215), (242, 240, 243)], np.float32)


class TilesError(ValueError):
    """The source of tiles is invalid."""


@dataclass(frozen=True)
class Tile:
    """An image file, and its displayed width and height in pixels."""

    image: bytes
    size: tuple[int, int]

    @property
    def key(self) -> str:
        """A digest of the bytes, equal in all processes."""
        return hashlib.sha256(self.image).hexdigest()[:16]


def load_tiles(source: Path | None, count: int, seed: int) -> list[Tile]:
    """At most `count` tiles. Without a source they are generated, otherwise drawn at random from a MedMNIST file or
    from a folder and its subfolders. Raises `TilesError` if the source contains no images."""
    if source is None:
        return [Tile(generate(seed + number), (SIDE, SIDE)) for number in range(count)]
    candidates = _files(source, seed) if source.is_dir() else _from_npz(source, count, seed)
    tiles = list(islice((tile for image in candidates if (tile := _as_tile(image))), count))
    if not tiles:
        raise TilesError(f"{source} contains no images")
    return tiles


def _files(folder: Path, seed: int) -> Iterator[bytes]:
    """The files of a folder and its subfolders in random order, so that a small sample covers all classes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for number in np.random.default_rng(seed).permutation(len(files)):
        yield files[number].read_bytes()


def _as_tile(file: bytes) -> Tile | None:
    """The tile, or None if the file is not an image."""
    try:
        with Image.open(io.BytesIO(file)) as image:
            image.load()
            return Tile(file, ImageOps.exif_transpose(image).size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


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


def _from_npz(path: Path, count: int, seed: int) -> Iterator[bytes]:
    """Test images of a MedMNIST file, drawn without replacement."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images = arrays["test_images"]
        if images.dtype != np.uint8 or images.ndim not in (3, 4):
            raise ValueError(f"test_images is {images.dtype} {images.shape}, not uint8 [N, H, W, 3]")
        for number in np.random.default_rng(seed).permutation(len(images))[:count]:
            yield _png(images[number])
    # numpy, zipfile and zlib each raise their own errors for damaged files.
    except Exception as error:
        raise TilesError(f"{path.name} is not a MedMNIST file: {error}") from error


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
