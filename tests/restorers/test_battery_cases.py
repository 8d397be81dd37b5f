"""What every method must do in company: with planes of volumes, in two processes, on another
device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch import Tensor, nn

from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.networks import unet
from pseudohealthy.restorers import REGISTRY
from pseudohealthy.restorers.apply import Applied, How, Stack, apply
from pseudohealthy.restorers.base import Batch, Restorer
from pseudohealthy.training.trainer import PartLoss
from small import SIZE, batch_of, build, images, on_gpu, restored

METHODS = sorted(REGISTRY)
EMPTY = (0, 2, 5)  # of six planes


@pytest.fixture(params=METHODS)
def name(request) -> str:
    return request.param


def applied(restorer: Restorer, *stacks: Stack) -> list[Applied]:
    return apply(restorer, AnomalyMap(smooth=0.7), stacks, How(seed=3, device=torch.device("cpu")))


def stack(channels: int, rows: list[int]) -> Stack:
    """Some planes of one volume of six, of which some show nothing; the rest in a disc."""
    planes, grid = images(6, channels=channels), torch.arange(SIZE) - (SIZE - 1) / 2
    inside = (grid[:, None] ** 2 + grid**2 < (SIZE / 2 - 1) ** 2).expand(6, SIZE, SIZE).clone()
    inside[list(EMPTY)] = False
    planes = torch.where(inside[:, None], planes, -torch.ones(()))
    return Stack(planes[rows], inside[rows], rows, inside[rows].flatten(1).any(1))


# -- planes and volumes ----------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_empty_planes_stay_what_they_are_and_a_plane_alone_is_what_it_is_in_its_volume(
    name, channels
):
    restorer, case = build(name, channels), stack(channels, [*range(6)])
    alone = [stack(channels, [place]) for place in (1, 2)]
    volume, plane, nothing = (applied(restorer, part)[0] for part in (case, *alone))
    assert volume.healthy.shape == case.planes.shape and volume.maps.shape == (6, SIZE, SIZE)
    assert volume.judged.tolist() == [place not in EMPTY for place in range(6)]
    for place in EMPTY:
        assert (
            torch.equal(volume.healthy[place], case.planes[place]) and not volume.maps[place].any()
        )
        assert volume.plane_scores[place] == 0
    torch.testing.assert_close(volume.healthy[1], plane.healthy[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(volume.maps[1], plane.maps[0], atol=1e-5, rtol=1e-5)
    assert plane.score == pytest.approx(plane.plane_scores[0], abs=1e-6)
    assert volume.plane_scores[1] == pytest.approx(plane.score, abs=1e-5)
    assert (
        nothing.score == 0
        and not nothing.judged.any()
        and torch.equal(nothing.healthy, alone[1].planes)
    )
    low, high = (f(volume.plane_scores[volume.judged]) for f in (min, max))
    assert low - 1e-6 <= volume.score <= high + 1e-6, "of the planes that show something alone"


# -- two processes ---------------------------------------------------------------------------------
def half(batch: Batch, rank: int) -> Batch:
    """The planes of one of two processes, as the trainer shares them out."""
    rows = slice(len(batch.images) // 2 * rank, len(batch.images) // 2 * (rank + 1))
    draw = type(batch.draw)(batch.draw.seed, batch.draw.keys[rows])
    return Batch(
        batch.images[rows],
        batch.foreground[rows],
        None if batch.labels is None else batch.labels[rows],
        draw,
    )


def learnt(restorer: Restorer, batch: Batch) -> dict[str, Any]:
    """The gradients of every part, and the buffers, after one batch: what a step is made of."""
    restorer.train()
    found: dict[str, Any] = {}
    for part in restorer.parts():
        module: nn.Module = PartLoss(restorer, part)
        if dist.is_initialized():
            module = nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)
        torch.manual_seed(0)
        module(batch).backward()
        own = restorer.get_submodule(part).named_parameters()
        found |= {
            f"{part}.{key}": value.grad.clone() for key, value in own if value.grad is not None
        }
        restorer.zero_grad(set_to_none=True)
    return found | {key: value.clone() for key, value in restorer.named_buffers()}


def process(rank: int, names: list[str], folder: Path) -> None:
    """One of two: its share of the planes of each method, restored and learnt from."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for name in names:
        restorer, x = build(name), images(4)
        share = [2 * rank, 2 * rank + 1]
        found = {
            f"restored {key}": value for key, value in restored(restorer, x[share], share).items()
        }
        torch.save(
            found | learnt(restorer, half(batch_of(restorer, 4), rank)),
            folder / f"{name}-{rank}.pt",
        )
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    """What two processes made of each method, in a file each; forked, so that they need not import
    again."""
    folder = tmp_path_factory.mktemp("together")
    how = "spawn" if torch.cuda.is_initialized() else "fork"
    processes.start_processes(process, (METHODS, folder), nprocs=2, start_method=how)
    return folder


def test_two_processes_restore_and_learn_what_one_does(name, together):
    restorer, parts = build(name), [torch.load(together / f"{name}-{rank}.pt") for rank in (0, 1)]
    assert parts[0].keys() == parts[1].keys()
    alone = restored(restorer, images(4), [0, 1, 2, 3])
    for key, values in alone.items():
        got = torch.cat([part.pop(f"restored {key}") for part in parts])
        torch.testing.assert_close(
            got, values, atol=1e-5, rtol=1e-5, msg=lambda text, key=key: f"{key}: {text}"
        )
    expected = learnt(restorer, batch_of(restorer, 4))
    assert parts[0].keys() == expected.keys()
    normalises = any(isinstance(module, nn.BatchNorm2d) for module in restorer.modules())
    for key, value in expected.items():
        # By the planes of a process alone: then two know something else than one, but both the
        # same.
        if normalises:
            value = parts[0][key]
            if key in dict(restorer.named_buffers()):
                continue
        for part in parts:
            torch.testing.assert_close(
                part[key], value, atol=1e-5, rtol=1e-4, msg=lambda t, key=key: f"{key}: {t}"
            )


# -- two devices -----------------------------------------------------------------------------------
@pytest.mark.gpu
def test_two_devices_agree(name, monkeypatch):
    """The GPU where there is one, else its branches on the CPU; a method that has attention there
    must take its branch."""
    taken: list[Tensor] = []
    attention = unet.F.scaled_dot_product_attention

    def watched(*given: Tensor) -> Tensor:
        taken.append(given[0])
        return attention(*given)

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    close = 1e-3 if torch.cuda.is_available() else 1e-5
    restorer, x = build(name), images(3)
    here = restored(restorer, x, [0, 1, 2])
    monkeypatch.setattr(unet.F, "scaled_dot_product_attention", watched)
    module, moved = on_gpu(restorer), on_gpu(x)
    there = restored(module, moved, [0, 1, 2])
    assert here.keys() == there.keys()
    for key, values in here.items():
        torch.testing.assert_close(
            there[key].cpu().as_subclass(Tensor), values, atol=close, rtol=close
        )
    attends = any(
        type(module).__name__ in ("Attention", "CtAttention") for module in restorer.modules()
    )
    assert bool(taken) == attends
