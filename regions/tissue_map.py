"""The result: an answer for each tile with tissue, and what they add up to."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handler.classes import CODES, DISCLAIMER, TISSUES
from regions.answers import STATES, Answers
from regions.colours import BY_CLASS_ID, hex_of
from regions.grid import TILE_MICRONS, Grid, Tile
from regions.resolution import Mpp

TILE_MM2 = (TILE_MICRONS / 1000) ** 2
PROBABILITY_DIGITS = 6


@dataclass(frozen=True)
class Share:
    """Some tiles of a map: how many, their area, and their share of all tissue, in [0, 1]."""

    tiles: int
    mm2: float
    share: float


@dataclass(frozen=True)
class Composition:
    """What a map adds up to, in square millimetres.

    `classes` has the tiles of each class about which the model is confident, `abstained` all others, `tissue` both.
    `glass_mm2` is the area of tiles without tissue, `outside_mm2` the margin in which no whole tile fits.
    """

    classes: dict[str, Share]
    abstained: Share
    tissue: Share
    glass_mm2: float
    outside_mm2: float


@dataclass(frozen=True, eq=False)
class TissueMap:
    """The answers for the tiles of one image.

    `width` and `height` are the image's in pixels of level 0, `mpp` the size of such a pixel, `bounds` where the
    scanned area begins in the file. `tiles` are ordered by rows, and `answers` has one answer for each.
    """

    name: str
    width: int
    height: int
    mpp: Mpp
    bounds: tuple[int, int]
    grid: Grid
    tiles: tuple[Tile, ...]
    answers: Answers | None
    model: dict[str, Any]

    @property
    def classes(self) -> NDArray[np.int64]:
        """The predicted class of each tile, `[N]`."""
        return np.zeros(0, np.int64) if self.answers is None else self.answers.logits.argmax(axis=1)

    @property
    def abstained(self) -> NDArray[np.bool_]:
        """Which tiles have no class that the model is confident about, `[N]`."""
        return np.zeros(0, bool) if self.answers is None else self.answers.states != STATES.index("confident")

    @cached_property
    def boxes(self) -> NDArray[np.int64]:
        """Left, top, right and bottom of each tile in pixels of level 0, `[N, 4]`."""
        return np.array([self.grid.box(tile) for tile in self.tiles], np.int64).reshape(-1, 4)

    def composition(self) -> Composition:
        confident = self.classes[~self.abstained]
        counts = np.bincount(confident, minlength=len(CODES))
        image_mm2 = self.width * self.mpp.x * self.height * self.mpp.y / 1e6
        cells = self.grid.rows * self.grid.columns
        return Composition(
            {code: self._share(int(count)) for code, count in zip(CODES, counts, strict=True)},
            self._share(int(self.abstained.sum())),
            self._share(len(self.tiles)),
            _mm2(cells - len(self.tiles)),
            max(0.0, round(image_mm2 - cells * TILE_MM2, 6)),
        )

    def cells(self) -> NDArray[np.float32]:
        """Each cell's logits, `[9, rows x h, columns x w]`, with `h` and `w` cells in a tile; NaN on glass.

        A cell's logit is its value of the class activation map times the number of cells, plus the bias: what the
        tile's logit would be if all of it were like this cell. The mean over a tile is the tile's logit.
        """
        if self.answers is None:
            return np.full((len(CODES), self.grid.rows, self.grid.columns), np.nan, np.float32)
        cams = self.answers.cams
        channels, height, width = cams.shape[1:]
        bias = (self.answers.logits - cams.sum(axis=(2, 3), dtype=np.float64)).astype(np.float32)
        local = cams * np.float32(height * width) + bias[:, :, None, None]
        canvas = np.full((channels, self.grid.rows, height, self.grid.columns, width), np.nan, np.float32)
        rows, columns = ([getattr(tile, axis) for tile in self.tiles] for axis in ("row", "column"))
        canvas[:, rows, :, columns, :] = local
        return canvas.reshape(channels, self.grid.rows * height, self.grid.columns * width)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each tile, for JSON and tables."""
        answers = self.answers
        if answers is None:
            return []
        classes, abstained = self.classes, self.abstained
        return [
            {
                "row": tile.row,
                "column": tile.column,
                "x": int(self.boxes[index, 0]),
                "y": int(self.boxes[index, 1]),
                "class": CODES[classes[index]],
                "probabilities": answers.probabilities[index].round(PROBABILITY_DIGITS).tolist(),
                "prediction_set": [CODES[class_id] for class_id in np.flatnonzero(answers.sets[index])],
                "in_distribution": bool(answers.in_distribution[index]),
                "ood_score": _number(answers.ood_scores[index]),
                "state": STATES[answers.states[index]],
                "abstained": bool(abstained[index]),
                "fit": str(answers.fits[index]) or None,
                "fit_reasons": [reason for reason in str(answers.reasons[index]).split(",") if reason],
            }
            for index, tile in enumerate(self.tiles)
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "image": {
                "name": self.name,
                "width": self.width,
                "height": self.height,
                "mpp": asdict(self.mpp),
                "bounds": dict(zip("xy", self.bounds, strict=True)),
            },
            "grid": {
                "rows": self.grid.rows,
                "columns": self.grid.columns,
                "tile_microns": TILE_MICRONS,
                "origin": {"x": 0, "y": 0},
                "step": {"x": self.grid.step_x, "y": self.grid.step_y},
                "cells": list(self.answers.cams.shape[2:]) if self.answers else None,
            },
            "classes": [
                {"class_id": item.class_id, "code": item.code, "name": item.name, "colour": hex_of(colour)}
                for item, colour in zip(TISSUES, BY_CLASS_ID, strict=True)
            ],
            "model": self.model,
            "composition": asdict(self.composition()),
            "tiles": self.rows,
            "disclaimer": DISCLAIMER,
        }

    def _share(self, tiles: int) -> Share:
        return Share(tiles, _mm2(tiles), tiles / len(self.tiles) if self.tiles else 0.0)


def _mm2(tiles: int) -> float:
    return round(tiles * TILE_MM2, 6)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 3)
