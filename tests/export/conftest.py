from pathlib import Path

import pytest

from export.bundle import WRITERS, bundle
from export.bundles.source import Source, read_source
from serving.supervisor import ROOT
from training.checkpoint import SHIPPED


@pytest.fixture(scope="session")
def source(model_store: Path) -> Source:
    return read_source(SHIPPED, model_store, ROOT / "MODEL_CARD.md", ROOT / "docs" / "evaluation")


@pytest.fixture(scope="session")
def bundles(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every bundle, by name."""
    folder = tmp_path_factory.mktemp("bundles")
    for home in WRITERS:
        bundle(source, home, folder / home)
    return folder
