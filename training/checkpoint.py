"""Writes and reads weights and cards."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from handler.model.checkpoint import file_digest

SHIPPED = Path(__file__).parent / "checkpoints"


def save_weights(network: nn.Module, path: Path, dtype: torch.dtype = torch.float16) -> str:
    """Store the state dict with floating-point values as `dtype`. Returns the file's SHA-256."""
    state = {
        name: (value.detach().cpu().to(dtype) if value.is_floating_point() else value.cpu()).contiguous()
        for name, value in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, metadata={"format": "pt"})
    return file_digest(path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or npz file by name, floating-point values as float32.

    Raises `ValueError` if the file cannot be read.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        else:
            tensors = load_file(path)
    # zipfile, NumPy's header parser and safetensors raise many types for damaged bytes.
    except Exception as error:
        raise ValueError(f"the weights {path} cannot be read: {error or type(error).__name__}") from error
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write indented JSON with a final newline, the format of all reports."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n")
