import pytest

from handler.explain.types import Question
from handler.model.checkpoint import Model
from tests.conftest import Pixels
from tests.support.questions import ask


@pytest.fixture(scope="session")
def question(model: Model, tiles: Pixels) -> Question:
    """Nine tiles, each with another target."""
    return ask(model, tiles[:9], list(range(9)))
