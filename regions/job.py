"""The work on one input: its tiles in shares, whose answers are kept as files until the map is complete."""

import json
import os
import shutil
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from regions.answers import Answers
from regions.files import write_files, write_json
from regions.grid import READ_MPP, Grid, Tile, grid_of
from regions.inputs import claim, digest_of
from regions.overlay import picture_mpp
from regions.source import Pixels, Source, open_source
from regions.tissue import THUMBNAIL_MPP, all_tiles, small_picture, thumbnail, tissue_tiles
from regions.tissue_map import TissueMap

# Tiles that are read, classified and kept together. A multiple of the batch.
SHARE = 256
WORK = ".work"
KEY, RUN = "key.json", "run.json"


@dataclass(frozen=True)
class Settings:
    """What decides a map beside its input and the model.

    `mpp` overrides the size of a pixel; `all_tiles` includes glass; `read_mpp` is the coarsest resolution that is read;
    `detections` adds every tile to the GeoJSON.
    """

    mpp: float | None = None
    all_tiles: bool = False
    read_mpp: float = READ_MPP
    detections: bool = False


@dataclass(frozen=True)
class Run:
    """What all inputs of a command share: settings, the model's identity, versions of packages, and the arguments."""

    settings: Settings
    model: dict[str, Any]
    versions: dict[str, str]
    arguments: list[str]


class Job:
    """One input and the folder of its map."""

    def __init__(self, path: Path, output: Path, run: Run) -> None:
        """Open the input and claim a folder in `output`. Raises `RegionError`."""
        self.path = path
        self.settings = run.settings
        self._run = run
        self.source: Source = open_source(path, run.settings.mpp)
        self.grid: Grid = grid_of(self.source)
        self._folder = claim(output, path)

    @cached_property
    def tiles(self) -> list[Tile]:
        """The tiles to classify."""
        if self.settings.all_tiles:
            return all_tiles(self.grid)
        return tissue_tiles(self.source, self.grid, self._small_picture)

    @cached_property
    def _small_picture(self) -> Pixels:
        """Read once, because it takes as long as decoding the whole image if that has no coarse level."""
        return small_picture(self.source)

    @cached_property
    def _key(self) -> dict[str, Any]:
        """All that decides the map's files."""
        return {
            "input": {"path": str(self.path), "sha256": digest_of(self.path)},
            "settings": asdict(self.settings),
            "model": self._run.model,
            "versions": self._run.versions,
        }

    def is_done(self) -> bool:
        """Whether the map exists, made of the same input in the same way."""
        content = _read(self._folder / RUN)
        return content is not None and {name: content.get(name) for name in self._key} == self._key

    def prepare(self) -> None:
        """Drop what was kept for another version of the input, or by another model or setting."""
        work = self._folder / WORK
        if _read(work / KEY) == self._key:
            return
        shutil.rmtree(work, ignore_errors=True)
        (self._folder / RUN).unlink(missing_ok=True)
        work.mkdir()
        write_json(self._key, work / KEY)

    @cached_property
    def shares(self) -> list[list[Tile]]:
        return [self.tiles[start : start + SHARE] for start in range(0, len(self.tiles), SHARE)]

    def missing(self) -> list[int]:
        """The numbers of the shares without answers."""
        return [number for number in range(len(self.shares)) if not self._part(number).is_file()]

    def weight(self, number: int) -> int:
        """The places of the grid that a share settles, glass included; those of all shares sum to the grid."""
        places = [tile.row * self.grid.columns + tile.column for tile in self.tiles[::SHARE]]
        edges = [0, *places[1:], self.grid.rows * self.grid.columns]
        return edges[number + 1] - edges[number]

    def keep(self, number: int, answers: Answers) -> None:
        """Store the answers for a share."""
        temporary = self._part(number).with_suffix(f".{os.getpid()}")
        temporary.write_bytes(to_bytes(answers))
        temporary.replace(self._part(number))

    def finish(self) -> None:
        """Write the map from the kept answers, then drop those."""
        parts = [from_bytes(self._part(number).read_bytes()) for number in range(len(self.shares))]
        tissue_map = TissueMap(
            self.path.name,
            self.source.width,
            self.source.height,
            self.source.mpp,
            self.source.reader.bounds,
            self.grid,
            tuple(self.tiles),
            Answers.join(parts) if parts else None,
            self._run.model,
        )
        files = write_files(tissue_map, self._picture(), self._folder, self.settings.detections)
        reading = {"reader": self.source.reader.kind, "level": self.source.level_for(self.settings.read_mpp)}
        content = {**self._key, "reading": reading, "arguments": self._run.arguments, "files": files}
        write_json(content, self._folder / RUN)
        shutil.rmtree(self._folder / WORK)

    def _picture(self) -> Pixels:
        """The picture behind the overlay."""
        mpp = picture_mpp(self.source)
        return self._small_picture if mpp >= THUMBNAIL_MPP else thumbnail(self.source, mpp)

    def _part(self, number: int) -> Path:
        return self._folder / WORK / f"{number:06}.npz"


def to_bytes(answers: Answers) -> bytes:
    buffer = BytesIO()
    np.savez(buffer, **{field.name: getattr(answers, field.name) for field in fields(Answers)})
    return buffer.getvalue()


def from_bytes(data: bytes) -> Answers:
    with np.load(BytesIO(data)) as arrays:
        return Answers(**arrays)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content
