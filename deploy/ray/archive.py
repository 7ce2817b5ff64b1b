"""Opens the model archive in a Ray process."""

import json
import logging
import os
import zipfile
from pathlib import Path
from typing import Any

import ray
import torch

from handler.api.image import ImageLimits
from handler.api.service import Service
from handler.archive import open_engine, unpack
from handler.classifier import Classifier
from handler.explain.cache import AttributionCache
from handler.model.checkpoint import CARD
from serving.gateway.settings import ROOT, read_properties, read_settings

ARCHIVE = ROOT / "model_store" / "pathmnist.mar"
CONFIG = ROOT / "config.properties"


def connect() -> None:
    """Join the cluster at `RAY_ADDRESS`, or start one on this machine."""
    # Without an address, Ray would search for an earlier cluster on this machine and wait for it.
    address = os.environ.get("RAY_ADDRESS", "local")
    ray.init(address, include_dashboard=False, logging_level=logging.WARNING)


def model_version(archive: Path) -> str:
    """The version in an archive's card."""
    with zipfile.ZipFile(archive) as file:
        return str(json.loads(file.read(CARD))["version"])


def open_service(archive: Path, folder: Path, pool: str) -> Service:
    """The service of an archive, unpacked into a folder (see `open_classifier`)."""
    classifier, settings = open_classifier(archive, folder, pool)
    return Service(classifier, ImageLimits(**settings["image_limits"]))


def open_classifier(archive: Path, folder: Path, pool: str = "pathmnist") -> tuple[Classifier, dict[str, Any]]:
    """Unpack an archive into a folder and load it on the GPU that Ray assigned, if any; also returns its settings.

    The engine is the fastest that the settings allow for the pool, or the one in PATHMNIST_ENGINE. The selection is
    stored beside the archive, the cache of explanations in the folder. Raises the same errors as `load_model` and
    `require_signed_archive`.
    """
    require_signed_archive(archive)
    settings = unpack(archive, folder)
    device = torch.device("cuda" if ray.get_gpu_ids() else "cpu")
    cache = AttributionCache(folder / "explanations", settings["cache"]["bytes"])
    return Classifier(open_engine(folder, settings, device, archive.parent, pool), cache), settings


def require_signed_archive(archive: Path, config: Path = CONFIG) -> None:
    """Raise `SignatureError` if the config file has a public key and the archive's folder is not signed with it."""
    public_key = read_settings(read_properties(config)).model_public_key_file
    if public_key:
        # The import takes a second and 50 MB.
        from serving.signature import require_signed

        require_signed(archive.parent, public_key)
