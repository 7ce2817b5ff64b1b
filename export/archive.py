"""The TorchServe model archive: handler package, weights, card and configuration in one reproducible file."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from handler.model.backends import NETWORK_FILES
from handler.model.calibration import CONFIDENCE
from handler.model.checkpoint import CARD, WEIGHTS
from handler.model.gate import PROBE_TILES

ROOT = Path(__file__).parent.parent
MODEL_NAME = "pathmnist"
# Licences of what the weights were made from have to go where the weights go.
NOTICE = "NOTICE"
CONFIG = ROOT / "export" / "model-config.yaml"
# Anything but the clock: two exports of the same checkpoint have to be the same bytes.
TIMESTAMP = (1980, 1, 1, 0, 0, 0)


def write_archive(checkpoint: Path, version: str, path: Path, engine_files: Path | None = None) -> None:
    """Package a checkpoint folder with torch-model-archiver, then zip it in a fixed order with a fixed time.

    `engine_files` has what engines need beside the weights (export/backends.py). Without it PyTorch serves.
    """
    with tempfile.TemporaryDirectory() as folder:
        staging, unpacked = Path(folder, "extra"), Path(folder, "out")
        unpacked.mkdir()
        shutil.copytree(
            ROOT / "handler",
            staging / "handler",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        for name in (CARD, CONFIDENCE, NOTICE):
            if (checkpoint / name).is_file():
                shutil.copy(checkpoint / name, staging)
        if engine_files:
            for name in (*NETWORK_FILES, PROBE_TILES):
                if (engine_files / name).is_file():
                    shutil.copy(engine_files / name, staging)
        _run_archiver(
            {
                "model-name": MODEL_NAME,
                "version": version,
                "handler": ROOT / "handler" / "pathmnist_handler.py",
                "serialized-file": checkpoint / WEIGHTS,
                "extra-files": staging,
                "config-file": CONFIG,
                "export-path": unpacked,
                "archive-format": "no-archive",
            },
            scratch=Path(folder),
        )
        content = unpacked / MODEL_NAME
        _drop_creation_date(content / "MAR-INF" / "MANIFEST.json")
        _zip(content, path)


def _run_archiver(options: dict[str, str | Path], scratch: Path) -> None:
    """torch-model-archiver works in a folder of the temporary directory that is named after the model alone, so
    it gets a temporary directory of its own."""
    command = [str(Path(sys.executable).with_name("torch-model-archiver"))]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    subprocess.run(command, check=True, env={**os.environ, "TMPDIR": str(scratch)})


def _drop_creation_date(manifest: Path) -> None:
    values = json.loads(manifest.read_text())
    values.pop("createdOn", None)
    manifest.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def _zip(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(item for item in folder.rglob("*") if item.is_file()):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), TIMESTAMP)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, file.read_bytes(), zipfile.ZIP_STORED)
