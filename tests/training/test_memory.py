"""What a training needs is known before its first step; what cannot fit is refused, and what to
lower is said."""

from __future__ import annotations

import os

import pytest
import torch
from torch import nn

from pseudohealthy.__main__ import main
from pseudohealthy.data.load import load
from pseudohealthy.errors import Fault
from pseudohealthy.processes import World
from pseudohealthy.runs.run import Run
from pseudohealthy.training import loop, memory
from pseudohealthy.workflows.train import open_planes

CPU = World(0, 1, torch.device("cpu"))


@pytest.fixture
def trainer(pictures, tiny, tmp_path):
    def made(*settings, overwrite=False):
        manifest = load(pictures)
        where = os.path.relpath(pictures, tmp_path / "run")
        run = Run.create(
            tmp_path / "run",
            tiny(*settings),
            data=where,
            manifest_sha256=manifest.sha256,
            overwrite=overwrite,
        )
        return loop.Trainer(run, open_planes(run, manifest, CPU), CPU)

    return made


def test_live_counts_what_lies_in_memory_at_one_time():
    with memory.Live() as live:
        one = torch.zeros(1000)
        view = one.view(10, 100)  # nothing new
        two = one + 1
        del one, view
        three = two * 2
    assert live.most == 2 * 4000 and len(three) == 1000


def test_a_deep_network_is_counted_with_what_its_gradient_needs():
    network = nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.ReLU()) for _ in range(8)])
    x = torch.zeros(1000, 64)
    with memory.Live() as forward, torch.no_grad():
        network(x)
    with memory.Live() as live:
        network(x).sum().backward()
    assert 2 * x.nbytes <= forward.most <= 3 * x.nbytes
    assert 8 * x.nbytes <= live.most <= 20 * x.nbytes


def test_the_estimate_grows_with_batch_and_weights_and_leaves_no_trace(trainer):
    made = trainer("training.batch=8")
    before = {name: value.clone() for name, value in made.restorer.state_dict().items()}
    need = memory.needed(made)
    weights = sum(p.numel() * 4 for p in made.restorer.parameters())
    assert need.optimiser == 2 * weights and need.image > 16 * 16 * 4
    assert need.peak(80) > need.peak(8) >= need.optimiser + weights
    assert need.batch(need.peak(8) + 1) == 8 and need.batch(memory.LIBRARIES) == 0
    assert all(
        torch.equal(before[name], value) for name, value in made.restorer.state_dict().items()
    )
    assert all(p.grad is None for p in made.restorer.parameters())


def test_what_cannot_fit_is_refused_and_a_batch_that_fits_is_named(trainer, monkeypatch):
    made = trainer("training.batch=64")
    need = memory.needed(made)
    monkeypatch.setattr(memory, "available", lambda device: need.peak(64))
    memory.require(made)
    monkeypatch.setattr(memory, "available", lambda device: need.peak(20) + int(need.image / 2))
    with pytest.raises(Fault) as caught:
        memory.require(made)
    assert (caught.value.code, caught.value.exit) == ("OUT_OF_MEMORY", 7)
    assert (
        "--batch (now 64; 20 would fit)" in caught.value.cure and "canvas.size" in caught.value.cure
    )
    assert "checkpointing" in caught.value.cure


def test_one_image_that_does_not_fit_is_refused_while_it_is_measured(trainer, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device: 100_000)
    with pytest.raises(Fault) as caught:
        memory.require(trainer())
    assert caught.value.exit == 7 and "canvas.size (now 16)" in caught.value.cure


def test_the_program_refuses_a_batch_that_does_not_fit(
    pictures, tiny, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(memory, "available", lambda device: 10**9)
    (tmp_path / "recipe.toml").write_text(tiny("training.steps=2").toml())
    line = [
        "train",
        tmp_path / "recipe.toml",
        "--data",
        pictures,
        "--out",
        tmp_path / "run",
        "--batch",
        "60000",
    ]
    assert main([str(word) for word in [*line, "--device", "cpu"]]) == 7
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        last.startswith("error[OUT_OF_MEMORY]: this training needs about")
        and "--batch (now 60000;" in last
    )


def test_a_large_network_does_not_hide_what_an_image_adds(trainer):
    small = memory.needed(trainer())
    wide = memory.needed(trainer("restorer.network.width=48", overwrite=True))
    assert wide.image > 4 * small.image


def test_memory_that_runs_out_after_all_is_said(trainer):
    with pytest.raises(Fault) as caught, memory.told(trainer()):
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 31457280000 bytes"
        )
    assert caught.value.exit == 7 and "--batch" in caught.value.cure
    with pytest.raises(RuntimeError), memory.told(trainer(overwrite=True)):
        raise RuntimeError("something else")


def test_the_limits_of_containers_and_of_ulimit_count(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    assert memory.group() is None
    for name, text in (
        ("memory.max", "max\n"),
        ("memory.current", "5000\n"),
        ("memory.stat", "anon 1\ninactive_file 2000\n"),
    ):
        (tmp_path / name).write_text(text)
    assert memory.group() is None
    (tmp_path / "memory.max").write_text("10000\n")
    assert memory.group() == 10000 - 5000 + 2000
    monkeypatch.setattr(memory, "free", lambda: None)
    monkeypatch.setattr(memory, "address_space", lambda: 9000)
    assert memory.available(torch.device("cpu")) == 7000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert memory.available(torch.device("cpu")) == 3500


@pytest.mark.skipif(not os.path.isfile("/proc/meminfo"), reason="only Linux tells how much is free")
def test_this_machine_has_some_memory():
    assert memory.free() > 1e8
