"""PathMNIST in MedMNIST's npz schema, read completely into memory."""

import argparse
import sys
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
    """The data does not fit MedMNIST's schema; the message states the problem."""


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

    def of_every_class(self, count: int) -> "Split":
        """About `count` tiles, the same number of each class if there are enough, evenly spaced over the split."""
        each = max(1, round(count / NUM_CLASSES))
        places = [np.flatnonzero(self.labels == class_id) for class_id in range(NUM_CLASSES)]
        chosen = [at[np.linspace(0, len(at) - 1, min(each, len(at))).round().astype(int)] for at in places if len(at)]
        return Split(self.images[np.concatenate(chosen)], self.labels[np.concatenate(chosen)])

    def spread(self, count: int) -> NDArray[np.uint8]:
        """The images of `sample`."""
        return self.sample(count).images


@dataclass(frozen=True)
class PathMNIST:
    """The three splits and the SHA-256 of their file."""

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
    """`load` for a command: exits with a one-line message if the data are invalid."""
    try:
        return load(source)
    except DataError as error:
        sys.exit(f"data: {error}")


def download_official() -> Path:
    """MedMNIST's own file in its own cache folder, downloaded by the `medmnist` package if missing.

    The package checks the file's MD5. Raises `DataError` if the file is missing and cannot be downloaded.
    """
    import medmnist

    root = medmnist.info.DEFAULT_ROOT
    try:
        medmnist.PathMNIST(split="test", download=True, root=root)
    except (RuntimeError, OSError) as error:
        raise DataError(" ".join(str(error).split())) from error
    return Path(root) / "pathmnist.npz"


def read_npz(path: Path) -> PathMNIST:
    """Read and validate a file in MedMNIST's schema: `{train,val,test}_{images,labels}`.

    Raises `DataError` naming the first problem: file, key, shape, type, label range or a class without tiles.
    """
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    try:
        arrays = np.load(path, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise DataError(f"{path} contains a single array, expected an npz file")
        with arrays:
            splits = {name: _read_split(arrays, name) for name in SPLITS}
        digest = file_digest(path)
    except DataError:
        raise
    # zipfile, its decompressors and NumPy's header parser raise many types for damaged bytes.
    except Exception as error:
        raise DataError(f"{path} is not a readable npz file: {error or type(error).__name__}") from error
    sizes = {split.images.shape[1] for split in splits.values()}
    if len(sizes) > 1:
        raise DataError(f"splits differ in tile size: {sorted(sizes)}")
    return PathMNIST(**splits, digest=digest)


def _read_split(arrays: np.lib.npyio.NpzFile, name: str) -> Split:
    for key in (f"{name}_images", f"{name}_labels"):
        if key not in arrays:
            raise DataError(f"missing key {key!r}; the file has {sorted(arrays.files)}")
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    if not isinstance(images, np.ndarray) or not isinstance(labels, np.ndarray):
        raise DataError(f"{name}_images or {name}_labels is not an array in NumPy's format")
    if images.dtype != np.uint8:
        raise DataError(f"{name}_images has dtype {images.dtype}, expected uint8")
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3 or not images.shape[1]:
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
    missing = sorted(set(range(NUM_CLASSES)) - set(flat.tolist()))
    if missing:
        raise DataError(f"{name}_labels has no tile of the classes {missing}; every split needs all {NUM_CLASSES}")
    return Split(images, flat)


def as_tiles(split: Split) -> Tensor:
    """All tiles of a split, float32 `[N, 3, S, S]` in [0, 1]."""
    return torch.from_numpy(split.images).permute(0, 3, 1, 2).float() / 255


class TileStream:
    """An endless stream of the tiles of a split, reshuffled in each pass.

    The tile at a position depends only on the seed, so a run can resume at any position.
    """

    def __init__(self, split: Split, seed: int) -> None:
        self._tiles = torch.from_numpy(split.images).permute(0, 3, 1, 2).contiguous()
        self._labels = torch.from_numpy(split.labels)
        self._order = lru_cache(maxsize=2)(partial(_shuffled, len(split), seed))

    def read(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """`count` tiles uint8 `[N, 3, S, S]` from position `start` on, with their labels."""
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
