import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from xdist.scheduler import LoadFileScheduling

from export.__main__ import export
from handler.api.image import ImageLimits
from handler.api.service import Service
from handler.classifier import Classifier
from handler.model.backends import NETWORK_FILES
from handler.model.checkpoint import Model, load_model
from handler.model.engine import Engine
from handler.model.gate import PROBE_TILES
from serving.ports import free_addresses
from serving.supervisor import ROOT, TorchServe
from tests.support.contract import require_described
from tests.support.shipped import VERSION
from training.checkpoint import SHIPPED
from training.data import PathMNIST, read_npz
from training.synthetic import generate

SHARED = ROOT.parent / "shared" / "data"
Pixels = NDArray[np.uint8]

# Markers by folder and by fixture, so that no test has to name them.
MARKED_FOLDERS = {
    "browser": ("web",),
    "server": ("bench", "client", "loadtest", "serving"),
    "slow": ("evaluation", "export", "training"),
}
MARKED_FIXTURES = {"server": ("server", "short_tempered"), "ray": ("cluster", "ray")}
RAY_FILES = "test_ray_"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest files come first, so that the last ones keep all processes busy.
    items.sort(key=lambda item: _folder(item) not in MARKED_FOLDERS["slow"])
    for item in items:
        folder = _folder(item)
        fixtures = getattr(item, "fixturenames", ())
        for marker, folders in MARKED_FOLDERS.items():
            if folder in folders:
                item.add_marker(marker)
        for marker, names in MARKED_FIXTURES.items():
            if set(names) & set(fixtures):
                item.add_marker(marker)
        if item.path.name.startswith(RAY_FILES):
            item.add_marker("ray")
        if "model_store" in fixtures:
            item.add_marker("slow")


def _folder(item: pytest.Item) -> str:
    """The first folder below tests/, or the file's own name."""
    return item.path.relative_to(ROOT / "tests").parts[0]


class ByFile(LoadFileScheduling):
    """With several processes (`make test`), the tests of a file share one, and so do all that need the Ray cluster."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "ray" if Path(file).name.startswith(RAY_FILES) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def described() -> Iterator[None]:
    """Every response that a test gets from the server is as `docs/openapi.json` says."""
    send = requests.Session.send

    def checked(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        response = send(session, request, **options)
        require_described(response)
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests.Session, "send", checked)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, which is never part of the project."""
    if not (SHARED / "pathmnist.npz").is_file():
        pytest.skip("real PathMNIST images are not at hand (../shared/data)")
    return SHARED


@pytest.fixture(scope="session")
def real_data(shared: Path) -> PathMNIST:
    return read_npz(shared / "pathmnist.npz")


@pytest.fixture(scope="session")
def tiles() -> Pixels:
    """Generated tiles, two of each class."""
    return generate(18, seed=1).images


@pytest.fixture(scope="session")
def model() -> Model:
    return load_model(SHIPPED)


@pytest.fixture(scope="session")
def classifier(model: Model) -> Classifier:
    return Classifier(Engine(model, torch.device("cpu")))


@pytest.fixture(scope="session")
def service(classifier: Classifier) -> Service:
    return Service(classifier, ImageLimits())


@pytest.fixture(scope="session")
def model_store(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The shipped checkpoint, exported. Several processes export it once, and each has a copy of its own."""
    folder = tmp_path_factory.mktemp("model_store")
    tiles = generate(18, seed=2).images
    if worker_id == "master":
        export(SHIPPED, folder, tiles)
        return folder
    first = tmp_path_factory.getbasetemp().parent / "model_store"
    with FileLock(first.with_suffix(".lock")):
        if not first.is_dir():
            export(SHIPPED, first, tiles)
    return shutil.copytree(first, folder, dirs_exist_ok=True)


@pytest.fixture(scope="session")
def engine_files(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the archive carries for engines."""
    folder = tmp_path_factory.mktemp("engines")
    with zipfile.ZipFile(model_store / "pathmnist.mar") as archive:
        for name in (*NETWORK_FILES, PROBE_TILES):
            archive.extract(name, folder)
    return folder


@pytest.fixture(scope="session")
def server(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    """A running TorchServe that waits long enough for requests to share a batch."""
    # In float32, so that answers can be compared with PyTorch's on every processor.
    settings = free_addresses() | {"models": pool_settings(maxBatchDelay=50), "engine": "exact"}
    with TorchServe(ROOT / "config.properties", model_store, tmp_path_factory.mktemp("run"), settings) as running:
        running.wait_until_ready()
        yield running


def pool_settings(**changes: int) -> str:
    pool = {"defaultVersion": True, "marName": "pathmnist.mar", "minWorkers": 1, "maxWorkers": 1, "batchSize": 8}
    versions = {VERSION: {**pool, "maxBatchDelay": 5, **changes}}
    return json.dumps({"pathmnist": versions, "pathmnist-explain": versions})


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    def encode(image: Pixels | Image.Image, file_format: str = "PNG", **options: object) -> bytes:
        buffer = BytesIO()
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        picture.save(buffer, file_format, **options)
        return buffer.getvalue()

    return encode
