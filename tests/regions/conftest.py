from pathlib import Path

import pytest

from handler.classifier import Classifier
from regions.grid import grid_of, read_tiles
from regions.local_backend import LocalBackend
from regions.source import open_source
from regions.tissue import all_tiles
from regions.tissue_map import TissueMap
from tests.conftest import Pixels
from tests.support.slides import mosaic, write_png


@pytest.fixture(scope="session")
def backend(classifier: Classifier) -> LocalBackend:
    return LocalBackend(classifier)


@pytest.fixture(scope="session")
def region(tmp_path_factory: pytest.TempPathFactory, tiles: Pixels) -> Path:
    """Five by four generated tiles at 4 micrometres a pixel, the last two of glass."""
    path = tmp_path_factory.mktemp("region") / "region.png"
    write_png(path, mosaic(tiles, 5), 4.0)
    return path


@pytest.fixture(scope="session")
def tissue_map(region: Path, backend: LocalBackend) -> TissueMap:
    """The map of all tiles of `region` but the last two."""
    source = open_source(region)
    grid = grid_of(source)
    known = all_tiles(grid)[:18]
    answers = backend.classify(read_tiles(source, grid, known))
    bounds = source.reader.bounds
    model = backend.identity()
    return TissueMap("region.png", source.width, source.height, source.mpp, bounds, grid, tuple(known), answers, model)
