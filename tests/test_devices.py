"""bf16 only where a device computes in it; emulated, it is said."""

from __future__ import annotations

import pytest
import torch

from pseudohealthy import devices

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
