"""What the machine can do without a server: decoding and the network in one process, set up as a worker is."""

import statistics
import tempfile
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from handler.api.image import ImageLimits, decode_image
from handler.api.service import DECODERS
from handler.model.backends import NETWORK_FILES
from handler.model.checkpoint import load_model
from handler.model.engine import Engine
from serving.supervisor import ROOT
from training.checkpoint import SHIPPED


class Ceiling:
    """The worker's own engine, called directly."""

    def __init__(self, backend: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(ROOT / "model_store" / "pathmnist.mar") as archive:
                for name in NETWORK_FILES:
                    archive.extract(name, folder)
            self._engine = Engine(load_model(SHIPPED), torch.device("cpu"), backend, Path(folder))
        self._threads = torch.get_num_threads() if backend == "torch" else 1
        self._decoders = ThreadPoolExecutor(DECODERS)

    def images_per_second(self, images: Sequence[bytes], batch: int, rounds: int = 12) -> float:
        """From image files to logits, by the median time of a batch."""
        limits, seconds, threads = ImageLimits(), [], torch.get_num_threads()
        torch.set_num_threads(self._threads)
        for _ in range(rounds + 1):
            start = time.perf_counter()
            self._engine.forward(
                list(self._decoders.map(lambda image: decode_image(image, limits).pixels, images[:batch]))
            )
            seconds.append(time.perf_counter() - start)
        torch.set_num_threads(threads)
        return round(batch / statistics.median(seconds[1:]), 2)
