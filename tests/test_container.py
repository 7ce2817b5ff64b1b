"""The container files, as far as they can be tried without a container engine."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.server import ROOT
from tests.conftest import free_addresses

STAGE = re.compile(r"^FROM \S+ AS (\S+)$", re.MULTILINE)
COPY = re.compile(r"^COPY (?!--from)(.+) (\S+)$", re.MULTILINE)


def stages() -> dict[str, str]:
    """The Dockerfile's text by stage."""
    names_and_texts = STAGE.split((ROOT / "Dockerfile").read_text())[1:]
    return dict(zip(names_and_texts[::2], names_and_texts[1::2], strict=True))


def copied(stage: str) -> list[str]:
    return [source for sources, _ in COPY.findall(stages()[stage]) for source in sources.split()]


@pytest.fixture
def compose() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return content


def test_everything_copied_exists_and_reaches_the_builder() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    admitted = {line.removeprefix("!") for line in lines}
    for stage in stages():
        for source in copied(stage):
            assert (ROOT / source).exists(), source
            assert admitted & {source, *map(str, Path(source).parents)}, source


def test_images_do_not_run_as_root() -> None:
    for stage in ("server", "demo"):
        assert "USER 10001" in stages()[stage]


def test_the_server_image_holds_what_the_server_needs(model_store: Path, tmp_path: Path) -> None:
    """Started as in the image, from a folder that holds nothing else."""
    application = tmp_path / "app"
    for source in copied("server"):
        (application / source).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, application / source)
    addresses = free_addresses()
    config = application / "config.properties"
    lines = [line for line in config.read_text().splitlines() if line.split("=")[0] not in addresses]
    config.write_text("\n".join([*lines, *(f"{name}={value}" for name, value in addresses.items())]))
    serving = [sys.executable, "-m", "serving"]
    environment = {**os.environ, "PATHMNIST_TOKEN": "token", "PYTHONPATH": str(application)}
    options = ["--run-folder", str(tmp_path / "run"), "--model-store", str(model_store)]
    with subprocess.Popen(
        [*serving, "start", *options], cwd=application, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready: ")
            check = [*serving, "check", "--edge-address", addresses["edge_address"]]
            assert subprocess.run(check, cwd=application, env=environment, timeout=60).returncode == 0
            stranger = subprocess.run(
                check, cwd=application, env={**environment, "PATHMNIST_TOKEN": ""}, timeout=60, capture_output=True
            )
            assert stranger.returncode == 1
        finally:
            process.terminate()


def test_services_have_a_read_only_root_and_no_capabilities(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) >= {"server", "demo"}
    for name, service in compose["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name


def test_the_page_asks_the_server_of_its_composition(compose: dict[str, Any]) -> None:
    environment = compose["services"]["demo"]["environment"]
    assert environment["PATHMNIST_URL"] == environment["PATHMNIST_METRICS_URL"] == "http://server:8080"
    assert environment["PATHMNIST_TOKEN"] == "${PATHMNIST_TOKEN}"


def test_the_page_takes_nothing_of_the_handler_but_what_its_image_holds() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "demo").glob("*.py"))
    modules = set(re.findall(r"^\s*(?:from|import) ((?:handler|training|export|serving)\S*)", sources, re.MULTILINE))
    assert {f"{module.replace('.', '/')}.py" for module in modules} <= set(copied("demo"))
