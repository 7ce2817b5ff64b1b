"""A slide of real tiles: the map has their classes, at every resolution."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from handler.classes import CODES
from regions.answers import STATES
from regions.grid import grid_of, read_tiles
from regions.local_backend import LocalBackend
from regions.source import open_source
from regions.tissue import all_tiles
from regions.tissue_map import TissueMap
from tests.conftest import Pixels
from tests.support.slides import WRITERS, enlarged, mosaic
from training.data import PathMNIST

Labels = NDArray[np.int64]
COLUMNS = 15


@pytest.fixture(scope="module")
def images(real_data: PathMNIST) -> Pixels:
    """Every sixth test tile: 120."""
    return real_data.test.images[::6]


@pytest.fixture(scope="module")
def classes(images: Pixels, backend: LocalBackend) -> Labels:
    return backend.classify(images).logits.argmax(axis=1)


@pytest.mark.parametrize(("factor", "name"), [(2, "levels.ome.tiff"), (4, "strips.tif"), (8, "pyramid.tif")])
def test_at_least_98_percent_of_classes_are_the_same_at_2_1_and_half_a_micrometre(
    factor: int, name: str, images: Pixels, classes: Labels, backend: LocalBackend, tmp_path: Path
) -> None:
    WRITERS[name](tmp_path / name, mosaic(enlarged(images, factor), COLUMNS), 4.0 / factor)
    source = open_source(tmp_path / name)
    grid = grid_of(source)
    tiles = read_tiles(source, grid, all_tiles(grid), read_mpp=0.5)
    assert (backend.classify(tiles).logits.argmax(axis=1) == classes).mean() >= 0.98


def test_areas_are_those_of_the_answers(images: Pixels, classes: Labels, backend: LocalBackend, tmp_path: Path) -> None:
    WRITERS["picture.png"](tmp_path / "a.png", mosaic(images, COLUMNS), 4.0)
    source = open_source(tmp_path / "a.png")
    grid = grid_of(source)
    answers = backend.classify(images)
    size = (source.width, source.height)
    tissue_map = TissueMap("a", *size, source.mpp, (0, 0), grid, tuple(all_tiles(grid)), answers, {})
    confident = answers.states == STATES.index("confident")
    for class_id, code in enumerate(CODES):
        share = tissue_map.composition().classes[code]
        assert share.tiles == np.count_nonzero((classes == class_id) & confident)
        assert share.mm2 == pytest.approx(share.tiles * 0.112**2, abs=1e-6)
    assert tissue_map.composition().abstained.tiles == np.count_nonzero(~confident)


def test_a_scanners_level_at_one_micrometre_gives_the_classes_of_level_0(
    shared: Path, backend: LocalBackend, tmp_path: Path
) -> None:
    """On the originals of 224 pixels; the level is averaged and compressed again, as scanners make it."""
    files = sorted((shared / "originals_224").glob("*.png"))
    originals = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    pixels = mosaic(originals, 8)
    half = Image.fromarray(pixels).reduce(2)
    half.save(tmp_path / "half.jpg", quality=75, dpi=(25400, 25400))
    Image.fromarray(pixels).save(tmp_path / "full.png", dpi=(50800, 50800))
    found = []
    for name in ("full.png", "half.jpg"):
        source = open_source(tmp_path / name)
        grid = grid_of(source)
        found.append(backend.classify(read_tiles(source, grid, all_tiles(grid))[: len(files)]).logits.argmax(axis=1))
    assert (found[0] == found[1]).mean() >= 0.95
