"""What a run leaves: the weights and their card, which says what made them and how well they do."""

import json
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import nn

from evaluation.channels import dead_channels
from evaluation.classification import predict_probabilities, scores
from handler.model.checkpoint import CARD, WEIGHTS
from handler.model.network import load_network
from training.checkpoint import save_weights, write_json
from training.data import as_tiles
from training.loop import Run, Training

VERSION = "2.1"
TEACHER_WEIGHTS = "teacher.safetensors"
TEACHER_CARD = "teacher.json"
# Number of validation tiles for the check for dead channels.
CHANNEL_TILES = 501


def write_result(run: Run, training: Training, network: nn.Module, facts: dict[str, Any]) -> None:
    """Write the weights and their card, which holds `facts` too."""
    origin = _origin(run, training) | facts
    if run.recipe.network != "resnet18":
        digest = save_weights(network, run.output / TEACHER_WEIGHTS, torch.float32)
        write_json(run.output / TEACHER_CARD, {"digest": digest, "training": origin})
        print(json.dumps(origin["validation_shifts"], indent=2))
        return
    card = _card(run, training, save_weights(network, run.output / WEIGHTS), origin)
    write_json(run.output / CARD, card)
    print(json.dumps(card["evaluation"], indent=2))


def _origin(run: Run, training: Training) -> dict[str, Any]:
    """What made the weights."""
    data, step, devices = run.data, training.progress.step, training.fabric.world_size
    return {
        "data": f"{len(data.train)} PathMNIST training tiles of {data.tile_size} pixels",
        "data_digest": data.digest,
        "teacher": run.teacher.origin if run.teacher else None,
        "continued_from": _predecessor(Path(run.recipe.init)),
        "recipe": asdict(run.recipe),
        "steps": step,
        "epochs": round(training.recipe.position(step, devices) / len(data.train), 2),
        "seed": run.seed,
        "date": datetime.now(UTC).date().isoformat(),
        "environment": environment(training.fabric),
    }


def _predecessor(weights: Path) -> dict[str, Any] | None:
    """Digest and origin of the weights that the run continued, if they are a file with a card beside it."""
    path = weights.with_name(CARD)
    if weights.name != WEIGHTS or not path.is_file():
        return None
    card = json.loads(path.read_text())
    return {"digest": card["digest"], "training": card["training"]}


def _card(run: Run, training: Training, digest: str, origin: dict[str, Any]) -> dict[str, Any]:
    """The card: description, origin and scores of the weights, which are read back from their file."""
    network, preprocessing = load_network(run.output / WEIGHTS), training.preprocessing
    evaluation = {
        name: scores(predict_probabilities(network, split, preprocessing), split.labels)
        for name, split in (("val", run.data.val), ("test", run.data.test))
    }
    return {
        "name": "pathmnist-resnet18",
        # Servers distinguish models by version, so each run has a unique one.
        "version": f"{VERSION}-{digest[:8]}",
        "digest": digest,
        "licence": "MIT",
        "preprocessing": preprocessing.to_json(),
        "training": origin,
        "dead_channels": dead_channels(network, as_tiles(run.data.val.sample(CHANNEL_TILES)), preprocessing),
        "evaluation": evaluation,
    }


def environment(fabric: Fabric) -> dict[str, Any]:
    """The environment of the run that can affect its results."""
    device = fabric.device
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
    packages = ("torch", "torchvision", "lightning", "kornia", "numpy")
    return {
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "device": kind,
        "processes": fabric.world_size,
        "precision": fabric.strategy.precision.precision,
    }


def commit() -> str:
    """The commit of the checkout, or `unknown`."""
    result = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"
