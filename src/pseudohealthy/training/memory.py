"""The memory that a training needs, measured on one and two images before its first step, and the
memory that is free.

The step's own tensors are counted while one image, then two, go forwards and backwards: what one
image more adds, times the batch, is what the batch adds. Beside them stand the optimiser's state
(two numbers a weight), the averaged weights, and at the end the validation planes while they are
restored (64 at once). oneDNN's scratch is not seen by torch: SCRATCH. Estimated and measured peaks
(resident, two steps and the threshold, one thread of an AVX2 processor, 64 px): `quick` in batches
of 16, 819 and 794 MB; `dae-flair-small` of 8, 570 and 557 MB; `fanogan-small` of 8, 524 and 494 MB.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.errors import RESOURCE, Fault

try:
    import resource
except ImportError:  # no such limits on this system
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from pseudohealthy.training.trainer import Trainer

SCRATCH = 1.15  # of a convolution's kernel, on top of the tensors
LIBRARIES = 100_000_000  # bytes of code and buffers that libraries take when they are first used
RESTORED = 64  # planes that the threshold restores at once, see `finish`
COPIES = 5  # of the weights: themselves, their gradients, two moments, the average
GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Need:
    """Bytes that a training adds to what its process holds before the first step."""

    optimiser: int  # two numbers a weight
    step: float  # gradients and whatever else does not grow with the batch
    image: float  # that an image adds to a step
    # The planes that the threshold restores at once, with another copy of the weights
    restoring: float
    cache: int  # planes on disk that are mapped: the system may take them back

    def peak(self, batch: int) -> int:
        """Peak bytes with `batch` images a step."""
        return int(LIBRARIES + self.optimiser + max(self.step + self.image * batch, self.restoring))

    def batch(self, room: int) -> int:
        """Images a step that `room` bytes are enough for; 0 for none."""
        if self.peak(0) > room:
            return 0
        return int((room - LIBRARIES - self.optimiser - self.step) / max(self.image, 1))


class Live(TorchDispatchMode):
    """Counts the peak of the bytes of tensors that operations make.

    Args:
        room: Bytes beyond which Fault OUT_OF_MEMORY is raised; None for no limit.
    """

    def __init__(self, room: int | None = None):
        super().__init__()
        self.now = self.most = 0
        self.room, self.known = room, weakref.WeakSet[Any]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # Weights and images: what is made of them may be a view.
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self.known.add(tensor.untyped_storage())
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.count(tensor.untyped_storage())
        return result

    def count(self, storage: torch.UntypedStorage) -> None:
        if storage in self.known:
            return
        self.known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self.gone, size)
        if self.room is not None and self.most > self.room:
            raise Fault(
                "OUT_OF_MEMORY", "one image alone needs more memory than is free", exit=RESOURCE
            )

    def gone(self, size: int) -> None:
        self.now -= size


def require(trainer: Trainer) -> None:
    """Refuse a training that cannot fit into the memory that is free.

    Raises:
        Fault: OUT_OF_MEMORY (exit 7).
    """
    room = available(trainer.world.device)
    if room is None:
        return
    size = trainer.budget.batch // trainer.world.size
    try:
        need = needed(trainer, room)
    except Fault as fault:
        fault.cure = cure(trainer, 0)
        raise
    if need is not None and (peak := need.peak(size)) > room:
        fits = need.batch(room) * trainer.world.size
        raise Fault(
            "OUT_OF_MEMORY",
            f"this training needs about {gigabytes(peak)} more memory, "
            f"and {gigabytes(room)} are free",
            cure(trainer, fits),
            exit=RESOURCE,
        )


@contextmanager
def told(trainer: Trainer) -> Iterator[None]:
    """Turn torch's error into Fault OUT_OF_MEMORY where memory runs out after all: other processes
    may have taken it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(
            error, MemoryError | torch.OutOfMemoryError
        ) and "can't allocate memory" not in str(error):
            raise
        raise Fault(
            "OUT_OF_MEMORY",
            f"not enough memory at step {trainer.step}",
            cure(trainer, 0),
            exit=RESOURCE,
        ) from None


def require_weights(parameters: int, device: torch.device) -> None:
    """Refuse networks whose weights alone cannot fit, before they are made.

    Raises:
        Fault: OUT_OF_MEMORY (exit 7).
    """
    room, need = available(device), COPIES * 4 * parameters
    if room is not None and need > room:
        raise Fault(
            "OUT_OF_MEMORY",
            f"{parameters} parameters need {gigabytes(need)} to train, and {gigabytes(room)} "
            "are free",
            "lower the width, multipliers or blocks of the networks",
            exit=RESOURCE,
        )


def cure(trainer: Trainer, fits: int) -> str:
    """The cure of a fault: what to lower, and the batch that would fit (0: unknown)."""
    batch = (
        f"--batch (now {trainer.budget.batch}; {fits} would fit)"
        if fits
        else f"--batch (now {trainer.budget.batch})"
    )
    block = trainer.run.recipe.restorer.get("network", {}).get("block", {})
    spare = (
        ", or set restorer.network.block.checkpointing=true"
        if block.get("checkpointing") is False
        else ""
    )
    return f"lower {batch} or canvas.size (now {trainer.restorer.size}){spare}"


def needed(trainer: Trainer, room: int | None = None) -> Need | None:
    """The need of a training, measured on one and two images of the first batch.

    Returns:
        None for a method that takes no such batch.
    """
    buffers = {name: value.clone() for name, value in trainer.restorer.named_buffers()}
    try:
        step_of_one, step_of_two = (passed(trainer, count, room) for count in (1, 2))
        call_of_one, call_of_two = (restored(trainer, count, room) for count in (1, 2))
    except Fault as fault:
        if fault.code != "RECIPE":
            raise
        # Some networks cannot train on one image; the first step says what is wrong, if anything
        # is.
        return None
    finally:
        trainer.restorer.zero_grad(set_to_none=True)
        for name, value in trainer.restorer.named_buffers():
            value.copy_(buffers[name])
    weights = sum(p.numel() * p.element_size() for p in trainer.restorer.parameters())
    image = SCRATCH * max(0, step_of_two - step_of_one)
    planes = min(RESTORED, len(trainer.store.select("val", HEALTHY)))
    restoring = weights + SCRATCH * (
        call_of_one + max(0, call_of_two - call_of_one) * max(0, planes - 1)
    )
    return Need(
        2 * trainable(trainer),
        weights + max(0.0, step_of_one - image),
        image,
        restoring,
        on_disk(trainer),
    )


def passed(trainer: Trainer, count: int, room: int | None) -> int:
    """Peak bytes of a step on `count` images, without optimiser and gradients.

    These do not grow with the batch, and beside those of a large network what one image adds could
    not be seen.
    """
    trainer.restorer.train()
    batch = trainer.batch(0, count)
    hooks = [
        p.register_post_accumulate_grad_hook(forget)
        for p in trainer.restorer.parameters()
        if p.requires_grad
    ]
    try:
        with Live(room) as live:
            for part in trainer.losses:
                trainer.loss(trainer.restorer, batch, part).backward()
    finally:
        for hook in hooks:
            hook.remove()
    return live.most


def forget(parameter: Tensor) -> None:
    parameter.grad = None


def restored(trainer: Trainer, count: int, room: int | None) -> int:
    """Peak bytes of network calls without gradient, on `count` images."""
    batch = trainer.batch(0, count)
    with Live(room) as live, torch.no_grad():
        for part in trainer.losses:
            trainer.loss(trainer.average, batch, part)
    return live.most


def trainable(trainer: Trainer) -> int:
    """Bytes of the weights that have an optimiser."""
    parts = [trainer.restorer.get_submodule(part) for part in trainer.losses]
    return sum(p.numel() * p.element_size() for part in parts for p in part.parameters())


def on_disk(trainer: Trainer) -> int:
    return sum(path.stat().st_size for path in trainer.store.folder.glob("*.npy"))


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


# -- what there is ---------------------------------------------------------------------------------
def available(device: torch.device) -> int | None:
    """Bytes that a process may still take on this device; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    rooms = [size for size in (free(), group(), address_space()) if size is not None]
    return min(rooms) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if rooms else None


def free() -> int | None:
    """Bytes of the machine that Linux calls available, or all its bytes where only those are
    known."""
    try:
        words = Path("/proc/meminfo").read_text(encoding="ascii").split()
        return 1024 * int(words[words.index("MemAvailable:") + 1])
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def group() -> int | None:
    """Bytes of the container: its limit less what is in use and cannot be taken back."""
    for limit, usage, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            maximum, current = (int((GROUPS / name).read_text()) for name in (limit, usage))
            words = (GROUPS / stat).read_text().split()
        except (OSError, ValueError):  # no such group, or "max"
            continue
        spare = int(words[words.index("inactive_file") + 1]) if "inactive_file" in words else 0
        return max(0, maximum - current + spare)
    return None


def address_space() -> int | None:
    """Bytes of `ulimit -v`, less those that are mapped already."""
    if resource is None:
        return None
    try:
        maximum, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return None
    return (
        None
        if maximum == resource.RLIM_INFINITY
        else max(0, maximum - pages * resource.getpagesize())
    )
