"""The same words on more processes: what torchrun sets in the environment, and what one process is
without it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from pseudohealthy import progress
from pseudohealthy.devices import pick_device
from pseudohealthy.errors import Fault

LONGEST = timedelta(days=14)  # shares of an archive end hours apart


@dataclass(frozen=True)
class World:
    """This process among `size`; `device` is the one it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """The one process that writes files and talks."""
        return self.rank == 0

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """True on all processes when it is on one (a signal reaches them at different steps)."""
        if self.size == 1:
            return flag
        tensor = torch.tensor([int(flag)], device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return bool(tensor.item())

    def same(self, value: float) -> float:
        """The first process's value, on all of them."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], device=self.device, dtype=torch.float64)
        dist.broadcast(tensor, 0)
        return tensor.item()

    def mean(self, value: float) -> float:
        """Mean over processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], device=self.device, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.item() / self.size

    def once(self, do: Callable[[], None]) -> None:
        """Do it in the first process while the others wait; its `Fault` is everybody's."""
        fault: list[Fault | None] = [None]
        if self.first:
            try:
                do()
            except Fault as found:
                fault = [found]
        if self.size > 1:
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
        parts: list[Any] | None = [None] * self.size if self.first else None
        dist.gather_object(part, parts)
        return parts or []


def join(device: str = "auto", *, objects: bool = False) -> World:
    """This process's place in the world; joins the process group when torchrun started it.

    Args:
        device: auto | cpu | cuda[:n].
        objects: what travels are rows, not tensors: over gloo whatever the device, waiting for
            days, and only the first process talks. Otherwise gloo on a CPU, NCCL on CUDA.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    place = pick_device(device)
    if size == 1:
        return World(0, 1, place)
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if place.type == "cuda":
        # inputs are shared out to more processes than GPUs where somebody wants it, training steps
        # are not
        place = torch.device("cuda", local % torch.cuda.device_count() if objects else local)
        torch.cuda.set_device(place)
    else:
        torch.set_num_threads(
            max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", str(size))))
        )
    if not dist.is_initialized():
        if objects:
            dist.init_process_group("gloo", timeout=LONGEST)
        else:
            dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    progress.quiet = progress.quiet or (objects and rank > 0)
    return World(rank, size, place)
