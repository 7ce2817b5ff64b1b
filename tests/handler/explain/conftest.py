import pytest

from handler.explain.attribution import Question
from handler.model import Model
from tests.conftest import Pixels
from tests.handler.explain.questions import ask


@pytest.fixture(scope="session")
def question(model: Model, tiles: Pixels) -> Question:
    """Nine tiles, each with another target."""
    return ask(model, tiles[:9], list(range(9)))
