"""Opens the model archive outside TorchServe."""

import zipfile
from pathlib import Path
from typing import Any

import torch
import yaml

from handler.model import selection
from handler.model.engine import Engine


def unpack(archive: Path, folder: Path) -> dict[str, Any]:
    """Unpack an archive into a folder; returns the handler's settings in it."""
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    settings: dict[str, Any] = yaml.safe_load((folder / "model-config.yaml").read_text())["handler"]
    return settings


def open_engine(
    folder: Path, settings: dict[str, Any], device: torch.device, kept: Path, pool: str = "pathmnist"
) -> Engine:
    """The engine of an unpacked archive for a pool. The selection is kept in the folder `kept`."""
    allowed = {**settings, **settings["pools"].get(pool, {})}["engine"]
    return selection.open_engine(folder, device, allowed, kept)
