"""Writing a trained network and its card."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from handler.model.checkpoint import file_digest

SHIPPED = Path(__file__).parent / "checkpoints"


def save_weights(network: nn.Module, path: Path, dtype: torch.dtype = torch.float16) -> str:
    """Store the state dict with floating-point values as `dtype`; returns the file's SHA-256."""
    state = {
        name: (value.detach().cpu().to(dtype) if value.is_floating_point() else value.cpu()).contiguous()
        for name, value in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, metadata={"format": "pt"})
    return file_digest(path)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write JSON the way every report here is written: indented, with a final newline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2) + "\n")
