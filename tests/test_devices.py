"""bf16 only where a device computes in it; emulated, it is said."""

from __future__ import annotations

import pytest
import torch

from pseudohealthy import devices, processes
from pseudohealthy.evaluation.peak import Peak
from pseudohealthy.training import memory

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def able(monkeypatch):
    """A processor with bf16 instructions, whatever this one has."""
    for switch in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(switch, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


def test_auto_is_bf16_where_the_processor_computes_in_it(able, capsys):
    assert devices.precision_of("auto", CPU) == devices.precision_of("bf16", CPU) == torch.bfloat16
    assert capsys.readouterr().err == ""


def test_without_bf16_instructions_auto_is_fp32(able, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert devices.precision_of("auto", CPU) == devices.precision_of("fp32", CPU) == torch.float32
    assert capsys.readouterr().err == ""


def test_emulated_bf16_that_is_asked_for_is_said_to_be_slow_in_one_line(able, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert devices.precision_of("bf16", CPU) == torch.bfloat16
    (line,) = capsys.readouterr().err.splitlines()
    assert "emulates bf16" in line and "fp32" in line


@pytest.mark.parametrize("most", ["avx2", "AVX512_CORE", "AVX512_CORE_VNNI"])
def test_instructions_that_are_switched_off_do_not_count(able, monkeypatch, most):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
    assert devices.precision_of("auto", CPU) == torch.float32


def test_torch_held_to_avx2_counts_as_avx2(able, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert devices.precision_of("auto", CPU) == torch.float32


@pytest.mark.parametrize("most", ["", "AVX512_CORE_BF16", "AVX512_CORE_AMX", "DEFAULT"])
def test_a_switch_that_leaves_bf16_does_not_matter(able, monkeypatch, most):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
    assert devices.precision_of("auto", CPU) == torch.bfloat16


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_that_emulates_bf16_gets_fp32(monkeypatch, native):
    supported = lambda including_emulation=True: native or including_emulation  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert (devices.precision_of("auto", CUDA) == torch.bfloat16) == native


# -- branches of a GPU, with what decides put in its place -----------------------------------------
@pytest.mark.gpu
def test_memory_of_a_gpu_is_what_its_driver_says_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3_000, 8_000))
    assert memory.available(CUDA) == 3_000 != memory.available(CPU)


@pytest.mark.gpu
def test_a_peak_on_a_gpu_is_what_its_allocator_held_beyond_what_it_held_before(monkeypatch):
    done = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: done.append("reset"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append("waited"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5e6)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 12.5e6)
    with Peak(CUDA) as peak:
        assert done == ["reset"]
    assert peak.megabytes == 7.5 and done == ["reset", "waited"]


@pytest.mark.gpu
@pytest.mark.parametrize("objects, expected", [(True, "cuda:1"), (False, "cuda:3")])
def test_more_processes_than_gpus_may_share_inputs_but_no_training(monkeypatch, objects, expected):
    """The fourth process on two GPUs takes the second one for its inputs; a training asks for its
    own, and torch refuses."""
    taken, groups = [], []
    for key, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(processes.progress, "quiet", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: taken.append(str(device)))
    monkeypatch.setattr(processes.dist, "init_process_group", lambda kind, **_: groups.append(kind))
    world = processes.join("cuda", objects=objects)
    assert (world.rank, world.size, str(world.device)) == (3, 4, expected) and taken == [expected]
    assert groups == ["gloo" if objects else "nccl"] and processes.progress.quiet == objects
