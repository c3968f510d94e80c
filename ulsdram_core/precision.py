"""Where and in which number format models run: bf16 where the hardware multiplies it fast."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]
PrecisionChoice = Literal["auto", "fp32", "bf16"]


def choose_device(device: str | torch.device | None) -> torch.device:
    """Resolve None: the GPU that this process has, else its CPU."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def choose_precision(choice: PrecisionChoice, device: torch.device) -> Precision:
    """Resolve `auto`: bf16 on a GPU or a CPU with matrix units for it (AMX), else fp32.

    avx512_bf16 alone multiplies at 0.5-0.6 of fp32's speed; without it bf16 is emulated.
    """
    if choice != "auto":
        return choice
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)() else "fp32"


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Keep the enclosed code out of an autocast around it; inputs come as they are."""
    return torch.autocast(device.type, enabled=False)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Run the enclosed code in `precision`; delicate parts keep fp32 themselves."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
