"""What all bundles have in common."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.reports import ReportError
from export.bundle import WRITERS, bundle, main
from export.bundles.source import BundleError, Source, read_source
from serving.supervisor import ROOT
from training.checkpoint import SHIPPED

CARD, REPORTS = ROOT / "MODEL_CARD.md", ROOT / "docs" / "evaluation"
HOMES = pytest.mark.parametrize("home", WRITERS)


def contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def parts(path: Path) -> Iterator[bytes]:
    """The bytes of a file, unpacked if it is an archive."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    yield path.read_bytes()


@HOMES
def test_a_bundle_holds_card_licence_and_notice(home: str, bundles: Path) -> None:
    card = (bundles / home / "README.md").read_text()
    for section in CARD.read_text().split("\n## "):
        assert section.strip() in card
    assert (bundles / home / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert (bundles / home / "NOTICE").read_text() == (SHIPPED / "NOTICE").read_text()


@HOMES
def test_a_bundle_says_in_which_order_the_classes_are(home: str, bundles: Path) -> None:
    card = (bundles / home / "README.md").read_text()
    assert "The order of the classes is MedMNIST's: ADI, BACK, DEB, LYM, MUC, MUS, NORM, STR, TUM." in card


@HOMES
def test_a_bundle_lists_the_digest_of_every_other_file(home: str, bundles: Path) -> None:
    lines = (bundles / home / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    found = contents(bundles / home)
    del found["SHA256SUMS"]
    assert listed == found


@pytest.mark.parametrize("home", ["hub", "triton", "openvino"])
def test_a_bundle_is_the_same_bytes_each_time(home: str, source: Source, bundles: Path, tmp_path: Path) -> None:
    bundle(source, home, tmp_path / home)
    assert contents(tmp_path / home) == contents(bundles / home)


def test_two_runs_of_the_command_write_the_same_torchscript(model_store: Path, tmp_path: Path) -> None:
    """PyTorch numbers the modules that one process compiles, and orders some by Python's random hashes."""
    command = [sys.executable, "-m", "export.bundle", "--for", "wsinfer", "--store", str(model_store), "--output"]
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([*command, str(tmp_path / seed)], cwd=ROOT, env=environment, check=True, timeout=280)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


@HOMES
def test_no_file_of_a_bundle_names_a_path_of_this_machine(home: str, bundles: Path) -> None:
    for path in (bundles / home).rglob("*.*"):
        for part in parts(path):
            assert str(ROOT).encode() not in part, path
            assert sys.prefix.encode() not in part, path


def test_the_command_writes_a_bundle_and_keeps_what_is_there(
    model_store: Path, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["bundle", "--for", "hub", "--output", str(tmp_path / "hub"), "--store", str(model_store)]
    monkeypatch.setattr(sys, "argv", command)
    main()
    assert contents(tmp_path / "hub") == contents(bundles / "hub")
    with pytest.raises(SystemExit, match="is not empty"):
        main()


def test_parts_of_other_weights_are_refused(model_store: Path, tmp_path: Path) -> None:
    manifest = json.loads((model_store / "manifest.json").read_text())
    manifest["model"]["digest"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "card.md").write_text("# Another model\n")
    with pytest.raises(BundleError, match="python -m export"):
        read_source(SHIPPED, tmp_path, CARD, REPORTS)
    with pytest.raises(BundleError, match="is not the card of the weights"):
        read_source(SHIPPED, model_store, tmp_path / "card.md", REPORTS)
    with pytest.raises(ReportError, match="no report"):
        read_source(SHIPPED, model_store, CARD, tmp_path)


def test_a_changed_file_is_not_bundled(model_store: Path, tmp_path: Path) -> None:
    for name in ("manifest.json", "pathmnist.onnx", "pathmnist_explain.onnx"):
        shutil.copy(model_store / name, tmp_path)
    with (tmp_path / "pathmnist.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match="is not the file that the manifest describes"):
        read_source(SHIPPED, tmp_path, CARD, REPORTS)


@pytest.mark.parametrize("home", ["wsinfer", "hub"])
def test_a_model_without_a_calibration_can_be_bundled(home: str, source: Source, tmp_path: Path) -> None:
    plain = replace(source, model=replace(source.model, confidence=None))
    bundle(plain, home, tmp_path / home)
    assert plain.temperature == 1
    assert not (tmp_path / home / "calibration.json").exists()
