"""In which precision a device computes: the choice "auto | bf16 | fp32" made concrete."""

from __future__ import annotations

import os

import torch

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.progress import say

# Values of oneDNN's own switch ONEDNN_MAX_CPU_ISA that take bf16 instructions away.
WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2"}
WITHOUT_BF16 |= {"AVX512_CORE", "AVX512_CORE_VNNI"}


def precision_of(choice: str, device: torch.device) -> torch.dtype:
    """bf16 where asked for or where the device computes in it ("auto"); float32 otherwise.

    Where bf16 is asked for and only emulated, one line on standard error says so.
    """
    if choice == "fp32" or (choice == "auto" and not computes_bf16(device)):
        return torch.float32
    if choice == "bf16" and not computes_bf16(device):
        slow = "only emulates bf16, up to tens of times slower than fp32; choose auto or fp32"
        say(f"warning: this {device.type} {slow}", error=True)
    return torch.bfloat16


def computes_bf16(device: torch.device) -> bool:
    """Has the device bf16 instructions of its own, and may libraries use them?"""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cpu" and supported() and not held_back()


def held_back() -> bool:
    """Has someone switched the processor's newer instructions off, as one does for a comparison?"""
    most = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    return most.upper() in WITHOUT_BF16 or torch.backends.cpu.get_cpu_capability() == "AVX2"


def pick_device(choice: str) -> torch.device:
    """auto | cpu | cuda[:n]. Fault DEVICE (exit 2) when it is not there."""
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    if choice.startswith("cuda") and not torch.cuda.is_available():
        raise Fault("DEVICE", "no CUDA device is available", "use --device cpu or auto", exit=USAGE)
    try:
        return torch.device(choice)
    except RuntimeError:
        raise Fault(
            "DEVICE", f"'{choice}' is not a device", "use auto, cpu or cuda", exit=USAGE
        ) from None
