"""The network alone, from its inputs to its feature map, as files for the backends of handler/model/backends.py."""

import re
import subprocess
import sys
import uuid
from pathlib import Path

import torch
from torch import Tensor, nn

from export.onnx_file import BATCH, save_onnx
from export.quantisation import write_int8
from export.ranges import Ranges
from handler.model.backends import INPUT, NETWORK_INT8, NETWORK_MNN, NETWORK_ONNX, OUTPUT
from handler.model.checkpoint import Model, file_digest
from handler.model.network import feature_map
from handler.model.resnet import ResNet

# The function beneath MNN's command: the command itself would install a package and report home.
CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"
# MNN draws a name for each file that it writes.
UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Network(nn.Module):
    """`feature_map` as a module."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """`[N, 3, I, I]` to `[N, 512, h, w]`."""
        return feature_map(self.network, inputs)


def write_backend_files(model: Model, metadata: dict[str, str], ranges: Ranges | None, folder: Path) -> None:
    """Write `network.onnx`, `network.mnn` and, with ranges, `network_int8.onnx`, the same bytes each time."""
    side = model.preprocessing.input_size
    example = torch.zeros(2, 3, side, side)
    onnx_file = folder / NETWORK_ONNX
    save_onnx(Network(model.network), {INPUT: (example, {0: BATCH})}, (OUTPUT,), metadata, onnx_file)
    write_mnn(onnx_file, folder / NETWORK_MNN)
    if ranges:
        write_int8(onnx_file, ranges, folder / NETWORK_INT8)


def write_mnn(onnx_file: Path, path: Path) -> None:
    """Convert an ONNX file for MNN, the same bytes each time."""
    command = [sys.executable, "-c", CONVERT, "-f", "ONNX", "--modelFile", str(onnx_file), "--MNNModel", str(path)]
    # It prints without end to standard output.
    subprocess.run([*command, "--bizCode", "pathmnist"], check=True, stdout=subprocess.DEVNULL)
    content = path.read_bytes()
    (drawn,) = set(UUID.findall(content))
    fixed = str(uuid.uuid5(uuid.NAMESPACE_OID, file_digest(onnx_file))).encode()
    path.write_bytes(content.replace(drawn, fixed))
