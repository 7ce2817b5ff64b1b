"""What the machine can do without a server: decoding and the network in one process."""

import statistics
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch

from handler.backend import NETWORK_MNN, NETWORK_ONNX
from handler.engine import Engine
from handler.image import ImageLimits, decode_image
from handler.model import load_model
from serving.server import ROOT
from training.checkpoint import SHIPPED

BATCH = 8


class Ceiling:
    """The worker's own engine, called directly."""

    def __init__(self, backend: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(ROOT / "model_store" / "pathmnist.mar") as archive:
                for name in (NETWORK_ONNX, NETWORK_MNN):
                    archive.extract(name, folder)
            self._engine = Engine(load_model(SHIPPED), torch.device("cpu"), backend, Path(folder))

    def images_per_second(self, images: Sequence[bytes], batch: int = BATCH, rounds: int = 12) -> float:
        """From image files to logits, by the median time of a batch."""
        limits, seconds = ImageLimits(), []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            self._engine.forward([decode_image(image, limits) for image in images[:batch]])
            seconds.append(time.perf_counter() - start)
        return round(batch / statistics.median(seconds[1:]), 2)
