"""Selects the precision: bfloat16 if this machine is fast with it."""

from typing import Any

import torch


def fabric_precision(precision: str, bfloat16: bool) -> Any:
    """Lightning's name of a precision; `auto` is bfloat16 if it is allowed and this machine is fast with it."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if bfloat16 and _fast_bfloat16() else "32-true"


def _fast_bfloat16() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
