"""The same words on more devices: what torchrun sets in the environment, and what one process is without it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist

from pseudohealthy.errors import USAGE, Fault


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


def pick_device(choice: str) -> torch.device:
    """auto | cpu | cuda[:n]. Fault DEVICE (exit 2) when it is not there."""
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    if choice.startswith("cuda") and not torch.cuda.is_available():
        raise Fault("DEVICE", "no CUDA device is available", "use --device cpu or auto", exit=USAGE)
    try:
        return torch.device(choice)
    except RuntimeError:
        raise Fault("DEVICE", f"'{choice}' is not a device", "use auto, cpu or cuda", exit=USAGE) from None


def join(device: str = "auto") -> World:
    """This process's place in the world; joins the process group when torchrun started it (gloo on CPU, NCCL on CUDA)."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    place = pick_device(device)
    if size == 1:
        return World(0, 1, place)
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if place.type == "cuda":
        place = torch.device("cuda", local)
        torch.cuda.set_device(place)
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", str(size)))))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    return World(rank, size, place)
