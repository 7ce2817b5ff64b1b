"""Opens the model archive outside TorchServe."""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
import yaml

from handler.model.checkpoint import load_model
from handler.model.engine import Engine
from handler.model.selection import AUTO, REFERENCE, select_engine


def unpack(archive: Path, folder: Path) -> dict[str, Any]:
    """Unpack an archive into a folder; returns the handler's settings in it."""
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    settings: dict[str, Any] = yaml.safe_load((folder / "model-config.yaml").read_text())["handler"]
    return settings


def open_engine(
    folder: Path, settings: dict[str, Any], device: torch.device, kept: Path, pool: str = "pathmnist"
) -> Engine:
    """The fastest engine that an unpacked archive allows for a pool, or the one in PATHMNIST_ENGINE.

    The selection is kept in the folder `kept`. Raises the same errors as `load_model`.
    """
    allowed = {**settings, **settings["pools"].get(pool, {})}["engine"]
    choice = os.environ.get("PATHMNIST_ENGINE", AUTO)
    engine = select_engine(load_model(folder, device), device, folder, allowed, choice, kept)
    if device.type == "cpu" and engine.backend != REFERENCE:
        # The backend has the cores. Threads of PyTorch's own would spin between its operations and take them away.
        torch.set_num_threads(1)
    return engine
