import pytest

from handler.explain.types import Sample
from handler.model.checkpoint import Model
from tests.conftest import Pixels
from tests.support.explaining import sample


@pytest.fixture(scope="session")
def samples(model: Model, tiles: Pixels) -> list[Sample]:
    """Nine tiles, each with another target."""
    return [sample(model, tile, target) for target, tile in enumerate(tiles[:9])]
