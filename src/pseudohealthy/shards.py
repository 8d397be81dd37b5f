"""`detect` under torchrun: each process takes its share of the inputs, the first one gathers the rows.

Results travel over gloo whatever the device, and wait for days: shares of an archive end hours apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from pseudohealthy import progress
from pseudohealthy.errors import Fault
from pseudohealthy.training.distributed import pick_device

LONGEST = timedelta(days=14)


@dataclass(frozen=True)
class Share:
    """This process among `size`; it takes the inputs rank, rank + size, ..."""

    rank: int
    size: int
    device: str

    @property
    def first(self) -> bool:
        return self.rank == 0

    def once(self, do: Callable[[], None]) -> None:
        """Do it in the first process while the others wait; its `Fault` is everybody's."""
        fault: list[Fault | None] = [None]
        if self.first:
            try:
                do()
            except Fault as found:
                fault = [found]
        if self.size > 1:
            import torch.distributed as dist

            said = [None if fault[0] is None else (*fault[0].args, fault[0].exit)]
            dist.broadcast_object_list(said)
            if said[0] is not None and fault[0] is None:
                code, message, cure, number = said[0]
                fault = [Fault(code, message, cure, exit=number)]
        if fault[0] is not None:
            raise fault[0]

    def gather(self, part: Any) -> list[Any]:
        """The parts of all processes in the first one, none in the others."""
        if self.size == 1:
            return [part]
        import torch.distributed as dist

        parts: list[Any] | None = [None] * self.size if self.first else None
        dist.gather_object(part, parts)
        return parts or []

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()


def join(device: str = "auto") -> Share:
    """This process's share, as torchrun says in RANK and WORLD_SIZE; everything without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Share(0, 1, device)
    import torch.distributed as dist

    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", str(size)))
    if pick_device(device).type == "cuda":
        device = f"cuda:{local % torch.cuda.device_count()}"
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // here))
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=LONGEST)
    progress.quiet = progress.quiet or rank > 0
    return Share(rank, size, device)
