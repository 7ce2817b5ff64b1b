"""For WSInfer (arXiv 2309.04631) and its extension of QuPath: a TorchScript module and `config.json`.

Both programs divide a slide into tiles, apply the transforms that `config.json` names, run the module, then softmax.
The schema knows `Resize`, `ToTensor` and `Normalize` alone, so the exact reduction to the canonical tile is in the
module, and so is the temperature.
"""

import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from export.bundles.documents import write_documents
from export.bundles.source import Source
from export.contract import FIELD_OF_VIEW
from export.graph import NetworkInput
from handler.classes import CODES
from handler.model.preprocess import reduce, reducing_matrix
from training.checkpoint import write_json

# The names under which WSInfer's model zoo publishes.
MODULE, CONFIG = "torchscript_model.pt", "config.json"
# Written by PyTorch for its own error messages: source code with paths of this machine.
DEBUG = ".debug_pkl"
# PyTorch writes these by itself.
ADDED = ("version", "byteorder", ".data/serialization_id")


class CalibratedLogits(nn.Module):
    """From tiles as `ToTensor` gives them to logits whose softmax is the calibrated probabilities."""

    enlarge: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, source: Source) -> None:
        super().__init__()
        spec = source.model.preprocessing
        # Traced, as PyTorch writes a scripted network's constants in any order. Preprocessing is scripted, as a trace
        # would fix the size of tiles and the device.
        self.network = torch.jit.trace(source.model.network, torch.zeros(2, 3, spec.input_size, spec.input_size))
        self.canonical_size = spec.canonical_size
        self.temperature = source.temperature
        self.register_buffer("enlarge", NetworkInput(spec).get_buffer("enlarge"))
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(spec.std)[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """`image` is float32 `[N, 3, H, W]`, whole grey levels divided by 255; returns `[N, 9]`."""
        rows = reducing_matrix(image.shape[2], self.canonical_size).to(image.device)
        columns = reducing_matrix(image.shape[3], self.canonical_size).to(image.device)
        tiles = reduce((image * 255).round(), rows, columns) / 255
        inputs = (self.enlarge @ tiles @ self.enlarge.T - self.mean) / self.std
        return self.network(inputs) / self.temperature


def config() -> dict[str, object]:
    """`config.json` by version 1.0 of WSInfer's schema."""
    pixels = FIELD_OF_VIEW["pixels"]
    return {
        "spec_version": "1.0",
        "architecture": "resnet18",
        "num_classes": len(CODES),
        "class_names": list(CODES),
        "patch_size_pixels": pixels,
        "spacing_um_px": FIELD_OF_VIEW["micrometres_per_pixel"],
        # Slides have other spacings; QuPath needs tiles of one size in a batch.
        "transform": [{"name": "Resize", "arguments": {"size": pixels}}, {"name": "ToTensor"}],
    }


def write_wsinfer(source: Source, folder: Path) -> None:
    """Write the module, `config.json` and the documents."""
    with warnings.catch_warnings():
        # PyTorch calls TorchScript deprecated, but WSInfer and QuPath read nothing else.
        warnings.simplefilter("ignore", FutureWarning)
        module = torch.jit.script(CalibratedLogits(source).eval())
    save_torchscript(module, folder / MODULE)
    write_json(folder / CONFIG, config())
    values = {f"tile_{name}": value for name, value in FIELD_OF_VIEW.items()}
    write_documents(source, folder, "wsinfer", values)


def save_torchscript(module: torch.jit.ScriptModule, path: Path) -> None:
    """Save without PyTorch's records for its own error messages: the same bytes on every machine."""
    reader = torch._C.PyTorchFileReader(io.BytesIO(module.save_to_buffer()))
    writer = torch._C.PyTorchFileWriter(str(path))
    writer.set_min_version(int(reader.get_record("version")))
    for name in reader.get_all_records():
        if name not in ADDED and not name.endswith(DEBUG):
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
