"""The folder holds all that the page loads, and another model or module makes another version."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from export.web.build import FILE_LIST, POLICY, build
from handler.model.calibration import Confidence
from serving.supervisor import ROOT
from tests.export.web.conftest import FOLDER

MAX_DOWNLOAD = 42_000_000


def file_list(folder: Path) -> dict[str, Any]:
    text = (folder / FILE_LIST).read_text()
    content: dict[str, Any] = json.loads(text.removeprefix("self.FILES = ").removesuffix(";\n"))
    return content


def test_every_import_style_and_picture_is_in_the_folder(site_folder: Path) -> None:
    folder = site_folder / FOLDER
    listed = set(file_list(folder)["files"])
    for path in folder.glob("*.js"):
        for name in re.findall(r'^import [^;]*?"([^"]+)"', path.read_text(), re.MULTILINE):
            assert name.startswith("./"), (path.name, name)
            assert name.removeprefix("./") in listed, (path.name, name)
    for name in re.findall(r'(?:href|src)="([^"#]+)"', (folder / "index.html").read_text()):
        assert name in listed
    on_disk = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert on_disk == listed | {FILE_LIST}


def test_the_policy_allows_this_folders_origin_and_nothing_unsafe(site_folder: Path) -> None:
    html = (site_folder / FOLDER / "index.html").read_text()
    (policy,) = POLICY.findall(html)
    assert policy.startswith("default-src 'none'")
    sources = {word for directive in policy.split(";") for word in directive.split()[1:]}
    assert sources <= {"'none'", "'self'", "'wasm-unsafe-eval'"}
    assert file_list(site_folder / FOLDER)["policy"] == policy
    assert not re.search(r"<style|style=|<script(?![^>]*src=)|\son\w+=", html)


def test_no_module_names_a_host(site_folder: Path) -> None:
    for path in (site_folder / FOLDER).glob("*.js"):
        assert set(re.findall(r"https?://([\w.-]+)", path.read_text())) <= {"doi.org", "www.w3.org"}, path.name


def test_the_rules_are_the_calibrations(site_folder: Path, model: Any) -> None:
    data = json.loads((site_folder / FOLDER / "model.json").read_text())
    assert isinstance(model.confidence, Confidence)
    assert data["rules"] == model.confidence.rules_json()
    assert data["model"]["digest"] == model.digest


def test_a_rebuilt_page_is_the_same_version_and_no_other_folder_is_touched(
    model_store: Path, site_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "site"
    for _ in range(2):
        build(model_store, folder)
        assert file_list(folder)["version"] == file_list(site_folder / FOLDER)["version"]
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        build(model_store, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_the_command_prints_the_size(model_store: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "export.web", "--models", str(model_store), "--output", str(tmp_path / "site")]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    sizes = json.loads(finished.stdout)
    assert 0 < sizes["WebAssembly"]["gzip"] < sizes["WebAssembly"]["bytes"] < MAX_DOWNLOAD


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"pathmnist\.onnx: `make export` writes it"):
        build(tmp_path, tmp_path / "site")
