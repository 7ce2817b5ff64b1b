"""PathMNIST in MedMNIST's npz schema, read whole into memory."""

import argparse
import sys
import zipfile
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handler.classes import NUM_CLASSES
from handler.model.checkpoint import file_digest

SPLITS = ("train", "val", "test")


class DataError(ValueError):
    """The data does not fit MedMNIST's schema; the message names what is wrong."""


@dataclass(frozen=True)
class Split:
    """Images uint8 `[N, S, S, 3]` and labels int64 `[N]` in 0..8."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def sample(self, count: int) -> "Split":
        """Up to `count` tiles, evenly spaced over the split."""
        chosen = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)
        return Split(self.images[chosen], self.labels[chosen])

    def spread(self, count: int) -> NDArray[np.uint8]:
        """The images of `sample`."""
        return self.sample(count).images


@dataclass(frozen=True)
class PathMNIST:
    """The three splits and the SHA-256 of the file they came from."""

    train: Split
    val: Split
    test: Split
    digest: str

    @property
    def tile_size(self) -> int:
        return int(self.train.images.shape[1])

    def split(self, name: str) -> Split:
        return {"train": self.train, "val": self.val, "test": self.test}[name]


def load(source: str) -> PathMNIST:
    """Load `medmnist` (the official 28-pixel file, downloaded and checked by its MD5) or the path of an npz file."""
    if source == "medmnist":
        return read_npz(download_official())
    return read_npz(Path(source))


def load_or_exit(source: str) -> PathMNIST:
    """`load` for a command: what is wrong with the data ends it with one line."""
    try:
        return load(source)
    except DataError as error:
        sys.exit(f"data: {error}")


def download_official() -> Path:
    """Fetch the official file once with the `medmnist` package and check its MD5."""
    from medmnist import INFO
    from medmnist import PathMNIST as OfficialPathMNIST
    from medmnist.dataset import DEFAULT_ROOT

    OfficialPathMNIST(split="train", download=True)
    path = Path(DEFAULT_ROOT) / "pathmnist.npz"
    verify_md5(path, INFO["pathmnist"]["MD5"])
    return path


def verify_md5(path: Path, expected: str) -> None:
    """Raise `DataError` unless the file has this MD5."""
    found = file_digest(path, "md5")
    if found != expected:
        raise DataError(f"{path.name} has MD5 {found}, expected {expected}; delete it and download it again")


def read_npz(path: Path) -> PathMNIST:
    """Read and validate a file in MedMNIST's schema: `{train,val,test}_{images,labels}`.

    Raises `DataError` naming the first problem: file, key, shape, type or label range.
    """
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            splits = {name: _read_split(arrays, name) for name in SPLITS}
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a readable npz file: {error}") from error
    sizes = {split.images.shape[1] for split in splits.values()}
    if len(sizes) > 1:
        raise DataError(f"splits differ in tile size: {sorted(sizes)}")
    return PathMNIST(**splits, digest=file_digest(path))


def _read_split(arrays: np.lib.npyio.NpzFile, name: str) -> Split:
    for key in (f"{name}_images", f"{name}_labels"):
        if key not in arrays:
            raise DataError(f"missing key {key!r}; found {sorted(arrays.files)}")
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    if images.dtype != np.uint8:
        raise DataError(f"{name}_images has dtype {images.dtype}, expected uint8")
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise DataError(f"{name}_images has shape {images.shape}, expected (N, S, S, 3)")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{name}_labels has dtype {labels.dtype}, expected an integer type")
    if labels.shape not in ((len(images),), (len(images), 1)):
        raise DataError(f"{name}_labels has shape {labels.shape}, expected ({len(images)}, 1)")
    if len(images) == 0:
        raise DataError(f"{name}_images is empty")
    flat = labels.reshape(-1).astype(np.int64)
    if flat.min() < 0 or flat.max() >= NUM_CLASSES:
        raise DataError(f"{name}_labels range from {flat.min()} to {flat.max()}, expected 0 to {NUM_CLASSES - 1}")
    return Split(images, flat)


def as_tiles(split: Split) -> Tensor:
    """All tiles of a split, float32 `[N, 3, S, S]` in [0, 1]."""
    return torch.from_numpy(split.images).permute(0, 3, 1, 2).float() / 255


class TileStream:
    """The tiles of a split in one shuffled order after another, without end.

    What is at a position depends on the seed alone, so a run can resume anywhere.
    """

    def __init__(self, split: Split, seed: int) -> None:
        self._tiles = torch.from_numpy(split.images).permute(0, 3, 1, 2).contiguous()
        self._labels = torch.from_numpy(split.labels)
        self._order = lru_cache(maxsize=2)(partial(_shuffled, len(split), seed))

    def read(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """`count` tiles uint8 `[N, 3, S, S]` from a position on, with their labels."""
        size = len(self._labels)
        places = torch.arange(start, start + count)
        passes = (places // size).unique().tolist()
        indices = torch.cat([self._order(number)[places[places // size == number] % size] for number in passes])
        return self._tiles[indices], self._labels[indices]


def _shuffled(size: int, seed: int, number: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng((seed, number)).permutation(size))


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--data` to a command."""
    parser.add_argument(
        "--data",
        required=True,
        metavar="medmnist|FILE.npz",
        help="the official PathMNIST (downloaded, MD5 checked) or a file in MedMNIST's schema",
    )
