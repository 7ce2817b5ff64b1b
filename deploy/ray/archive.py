"""The model archive as a service, in a process of Ray's."""

import logging
import os
import zipfile
from pathlib import Path

import ray
import torch
import yaml

from handler.api.image import ImageLimits
from handler.api.service import Service
from handler.explain.cache import AttributionCache
from handler.model.engine import open_engine

ARCHIVE = Path(__file__).parents[2] / "model_store" / "pathmnist.mar"


def connect() -> None:
    """Join the cluster that `RAY_ADDRESS` names, or start a Ray of this machine's own."""
    # Named, or Ray would look for one that ran here before and wait for it.
    address = os.environ.get("RAY_ADDRESS", "local")
    ray.init(address, include_dashboard=False, logging_level=logging.WARNING)


def open_service(archive: Path, folder: Path, pool: str = "pathmnist") -> Service:
    """Unpack an archive into a folder and load it with its own settings for a pool, on the GPU that Ray gave, if any.

    The cache of explanations lies in that folder too. Raises what `open_engine` raises.
    """
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    settings = yaml.safe_load((folder / "model-config.yaml").read_text())["handler"]
    device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
    cache = AttributionCache(folder / "explanations", settings["cache"]["bytes"])
    engine = open_engine(folder, device, {**settings, **settings["pools"].get(pool, {})}["engine"])
    return Service(engine, ImageLimits(**settings["image_limits"]), cache)
