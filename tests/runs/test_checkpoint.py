"""Weights that are damaged, of another model or not finite are refused with exit code 5 before
anything is loaded."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from pseudohealthy.errors import Fault
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.run import Run


@pytest.fixture
def tensors():
    return {
        "a.weight": torch.randn(3, 4),
        "a.count": torch.tensor(7),
        "b": torch.zeros(0),
        "c": torch.ones(2).half(),
    }


def refused(code: str, path, **options) -> str:
    with pytest.raises(Fault) as caught:
        checkpoint.load(path, **options)
    assert caught.value.code == code and caught.value.exit == 5
    assert str(path.parent) not in str(caught.value)
    return str(caught.value)


def test_tensors_state_and_digest_come_back(tmp_path, tensors):
    state = {"step": 3, "history": [{"loss": 0.5}], "name": "ü"}
    sha256 = checkpoint.save(tmp_path / "w.safetensors", tensors, state)
    found, found_state, found_sha256 = checkpoint.load(tmp_path / "w.safetensors", expected=tensors)
    assert found_state == state and found_sha256 == sha256 == checkpoint.digest(tensors)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in tensors.items())
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"], (
        "nothing temporary is left behind"
    )


def test_the_digest_says_names_types_shapes_and_values_but_not_their_order(tensors):
    same = dict(reversed(tensors.items()))
    assert checkpoint.digest(same) == checkpoint.digest(tensors)
    others = [
        {**tensors, "b": torch.zeros(0, 2)},
        {**tensors, "a.weight": tensors["a.weight"].T},
        {**tensors, "a.count": torch.tensor(8)},
        {("z" if k == "b" else k): v for k, v in tensors.items()},
        {**tensors, "c": torch.ones(2).bfloat16()},
    ]
    assert len({checkpoint.digest(other) for other in [tensors, *others]}) == 6


@pytest.mark.parametrize("keep", [0, 5, 60, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, tensors, keep):
    path = tmp_path / "w.safetensors"
    checkpoint.save(path, tensors, {})
    size = path.stat().st_size
    os.truncate(path, int(keep * size) if isinstance(keep, float) else keep)
    refused("CHECKPOINT_CORRUPT", path)


def test_one_flipped_bit_is_noticed(tmp_path, tensors):
    path = tmp_path / "w.safetensors"
    checkpoint.save(path, tensors, {})
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert "sha256" in refused("CHECKPOINT_CORRUPT", path)


def test_a_header_that_declares_more_than_the_file_holds_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    refused("CHECKPOINT_CORRUPT", path)


def test_a_pickle_is_not_opened(tmp_path):
    path = tmp_path / "w.safetensors"
    torch.save({"a": torch.ones(2)}, path)
    refused("CHECKPOINT_CORRUPT", path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, tensors, bad):
    tensors["a.weight"][1, 2] = bad
    checkpoint.save(tmp_path / "w.safetensors", tensors, {})
    assert "a.weight" in refused("CHECKPOINT_NONFINITE", tmp_path / "w.safetensors")


def test_another_architecture_is_refused_with_the_first_differences(tmp_path, tensors):
    checkpoint.save(tmp_path / "w.safetensors", tensors, {})
    wanted = {
        "a.weight": torch.ones(4, 4),
        "d": torch.ones(1),
        **{k: tensors[k] for k in ("a.count", "b")},
    }
    text = refused("CHECKPOINT_MISMATCH", tmp_path / "w.safetensors", expected=wanted)
    assert (
        "missing d" in text and "unknown c" in text and "a.weight is (3, 4), wanted (4, 4)" in text
    )
    many = refused(
        "CHECKPOINT_MISMATCH",
        tmp_path / "w.safetensors",
        expected={f"x{i}": torch.ones(1) for i in range(9)},
    )
    assert "and 8 more" in many


def test_weights_of_others_without_our_header_can_be_read(tmp_path, tensors):
    save_file(tensors, tmp_path / "w.safetensors")
    assert checkpoint.load(tmp_path / "w.safetensors")[1] == {}


def test_absent_weights_are_refused(tmp_path):
    refused("CHECKPOINT_MISSING", tmp_path / "w.safetensors")


def test_a_run_whose_recipe_was_changed_does_not_load_its_weights(tiny_run, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(tiny_run, folder)
    text = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(text.replace("width = 8", "width = 16"))
    with pytest.raises(Fault) as caught:
        Run.open(folder).restorer()
    assert (caught.value.code, caught.value.exit) == ("CHECKPOINT_MISMATCH", 5)
    from pseudohealthy.workflows.train import resume

    with pytest.raises(Fault) as caught:
        resume(folder, data=data_of(tiny_run), steps=20, device="cpu")
    assert (caught.value.code, caught.value.exit) == ("CHECKPOINT_MISMATCH", 5)


def test_a_folder_that_is_no_run_or_a_damaged_one_is_refused(tiny_run, tmp_path):
    for action, code in (
        (lambda f: None, "RUN_MISSING"),
        (lambda f: shutil.copy(tiny_run / "recipe.toml", f), "RUN_CORRUPT"),
        (lambda f: (f / "run.json").write_text("{"), "RUN_CORRUPT"),
        (lambda f: (f / "run.json").write_text("{}"), None),
    ):
        action(tmp_path)
        if code is None:
            with pytest.raises(Fault) as caught:
                Run.open(tmp_path).restorer()
            assert caught.value.code == "CHECKPOINT_MISSING" and caught.value.exit == 5
            continue
        with pytest.raises(Fault) as caught:
            Run.open(tmp_path)
        assert caught.value.code == code and caught.value.exit == 5


def data_of(run):
    return run / json.loads((run / "run.json").read_text())["data"]
