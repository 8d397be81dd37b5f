"""What a piece of work takes: seconds, and memory beyond what was held before."""

from __future__ import annotations

import time
from pathlib import Path

import torch


class Peak:
    """Measures ``with Peak(device) as peak``: seconds, and megabytes beyond those held before.

    Memory is the allocator's own count on CUDA, else the process's resident memory as Linux counts
    it; None where neither is known.
    """

    def __init__(self, device: torch.device):
        self.cuda = device if device.type == "cuda" else None
        self.seconds, self.megabytes = 0.0, None  # type: float, float | None

    def __enter__(self) -> Peak:
        self.begun = time.perf_counter()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.cuda)
            self.before: float | None = torch.cuda.memory_allocated(self.cuda) / 1e6
        else:
            try:
                # The high-water mark starts again from here.
                Path("/proc/self/clear_refs").write_text("5")
                self.before = resident("VmRSS")
            except OSError:
                self.before = None
        return self

    def __exit__(self, *_: object) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.cuda)
            highest: float | None = torch.cuda.max_memory_allocated(self.cuda) / 1e6
        else:
            highest = resident("VmHWM") if self.before is not None else None
        self.seconds = time.perf_counter() - self.begun
        self.megabytes = (
            None
            if highest is None or self.before is None
            else round(max(0.0, highest - self.before), 1)
        )


def resident(entry: str) -> float | None:
    """Return megabytes of VmRSS or VmHWM of this process; None outside Linux."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(
            (float(line.split()[1]) / 1e3 for line in lines if line.startswith(entry)), None
        )
    except OSError:
        return None
