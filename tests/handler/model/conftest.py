import zipfile
from pathlib import Path

import pytest

from handler.model.backends import NETWORK_MNN, NETWORK_ONNX
from handler.model.gate import PROBE_TILES


@pytest.fixture(scope="session")
def engine_files(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the archive carries for engines."""
    folder = tmp_path_factory.mktemp("engines")
    with zipfile.ZipFile(model_store / "pathmnist.mar") as archive:
        for name in (NETWORK_ONNX, NETWORK_MNN, PROBE_TILES):
            archive.extract(name, folder)
    return folder
