"""`verify` finds every change to a run or an output, and never says of something that it agrees
when it did not look."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blobs import picture
from pseudohealthy.__main__ import main
from pseudohealthy.errors import Fault
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.run import Run
from pseudohealthy.workflows.detect import detect
from pseudohealthy.workflows.verification import AGREES, DIFFERS, UNCHECKED, Verification
from pseudohealthy.workflows.verify import verify

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")


def results(found: Verification) -> dict[str, str]:
    return {check.what: check.result for check in found.checks}


@pytest.fixture
def copied(tiny_run, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.fixture
def outputs(tiny_run, tmp_path) -> tuple[Path, Path]:
    """(inputs, what detect wrote for them)."""
    (tmp_path / "in").mkdir()
    for seed in range(2):
        image, _ = picture(np.random.default_rng(seed), bright=True)
        Image.fromarray(image).save(tmp_path / "in" / f"c{seed}.png")
    detect(tiny_run, [tmp_path / "in"], tmp_path / "out", device="cpu")
    return tmp_path / "in", tmp_path / "out"


# -- a run -----------------------------------------------------------------------------------------
def test_a_run_as_training_left_it_agrees_in_everything(tiny_run):
    found = verify(tiny_run, device="cpu")
    assert set(results(found).values()) == {AGREES} and found.exit == 0
    assert {
        "weights",
        "split.csv",
        "threshold.json",
        "fingerprint.json",
        "validation case",
    } <= results(found).keys()
    said = next(check.detail for check in found.checks if check.what == "validation case")
    assert "tolerance 0.001 (cpu, float32)" in said


@pytest.mark.parametrize("name", ["split.csv", "threshold.json", "fingerprint.json"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_file_that_changed_or_went_is_named(copied, pictures, name, how):
    path = copied / name
    path.write_text(path.read_text().replace("1", "2")) if how == "changed" else path.unlink()
    found = verify(copied, data=pictures, device="cpu")
    assert [what for what, result in results(found).items() if result == DIFFERS] == [
        name
    ] and found.exit == 5


def test_exchanged_weights_differ_and_nothing_is_computed_with_them(copied, pictures):
    tensors, state, _ = checkpoint.load(copied / "best_model.safetensors")
    name = next(k for k, v in tensors.items() if v.is_floating_point() and v.numel() > 1)
    checkpoint.save(copied / "best_model.safetensors", tensors | {name: tensors[name] + 1}, state)
    said = results(verify(copied, data=pictures, device="cpu"))
    assert said["weights"] == DIFFERS and said["validation case"] == UNCHECKED


def test_truncated_weights_differ(copied, pictures):
    path = copied / "best_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    found = verify(copied, data=pictures, device="cpu")
    assert results(found)["weights"] == DIFFERS and found.exit == 5


def test_a_score_that_the_model_does_not_give_differs(copied, pictures):
    run = Run.open(copied)
    run.note(kept_case=run.record["kept_case"] | {"score": run.record["kept_case"]["score"] + 0.01})
    said = results(verify(copied, data=pictures, device="cpu"))
    assert said.pop("validation case") == DIFFERS and set(said.values()) == {AGREES}


def test_what_cannot_be_looked_at_is_said_to_be_unchecked(copied, tmp_path):
    found = verify(copied, data=tmp_path / "absent", device="cpu")
    said = results(found)
    assert (said["list of cases"], said["validation case"]) == (UNCHECKED, UNCHECKED)
    assert "--data" in next(check.detail for check in found.checks if check.what == "list of cases")
    run = Run.open(copied)
    # A run of an earlier version.
    for key in ("files_sha256", "weights_sha256", "kept_case", "recipe_sha256"):
        del run.record[key]
    run.note(status="running")
    said = results(verify(copied, data=tmp_path / "absent", device="cpu"))
    assert set(said.values()) == {UNCHECKED}


def test_other_data_of_the_same_name_differ(copied, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "data")
    next((tmp_path / "data" / "train" / "good").iterdir()).unlink()
    said = results(verify(copied, data=tmp_path / "data", device="cpu"))
    assert said["list of cases"] == DIFFERS and said["validation case"] == UNCHECKED


def test_an_image_that_changed_behind_the_same_list_changes_the_score(copied, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "data")
    kept = Run.open(copied).record["kept_case"]["case_id"]
    image, _ = picture(np.random.default_rng(99), bright=True)
    Image.fromarray(image).save(tmp_path / "data" / "val" / "good" / f"{kept}.png")
    said = results(verify(copied, data=tmp_path / "data", device="cpu"))
    assert said["list of cases"] == AGREES and said["validation case"] == DIFFERS


# -- what detect wrote -----------------------------------------------------------------------------
def test_outputs_agree_and_one_case_is_detected_again(tiny_run, outputs):
    inputs, out = outputs
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    found = verify(out, data=inputs, run=tiny_run, device="cpu")
    assert results(found) == dict.fromkeys(
        ["case c0", "case c1", "c0 again", "c0 again: map"], AGREES
    )
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before, (
        "nothing is written"
    )


def test_without_input_or_run_only_hashes_are_compared_and_that_is_said(outputs):
    said = results(verify(outputs[1]))
    assert said == {"case c0": AGREES, "case c1": AGREES, "one case again": UNCHECKED}


@pytest.mark.parametrize("how", ["changed", "gone", "outside"])
def test_an_output_that_changed_fails_its_case_alone(tiny_run, outputs, how):
    inputs, out = outputs
    path = out / "c0" / "anomaly_map.tiff"
    if how == "changed":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    elif how == "gone":
        path.unlink()
    else:
        said = json.loads((out / "c0" / "case.json").read_text())
        said["outputs"]["anomaly_map"] = "../../in/c0.png"
        (out / "c0" / "case.json").write_text(json.dumps(said))
    found = verify(out, data=inputs, run=tiny_run, device="cpu")
    assert (
        results(found)["case c0"] == DIFFERS
        and results(found)["c1 again: map"] == AGREES
        and found.exit == 4
    )


def test_a_map_that_the_run_does_not_give_differs(tiny_run, outputs):
    from pseudohealthy.io.hashing import sha256

    inputs, out = outputs
    path = out / "c0" / "anomaly_map.tiff"
    Image.fromarray(np.asarray(Image.open(path)) + np.float32(0.5)).save(path)
    said = json.loads((out / "c0" / "case.json").read_text())
    # Whoever forges a file can forge its hash.
    said["outputs_sha256"]["anomaly_map"] = sha256([path])
    (out / "c0" / "case.json").write_text(json.dumps(said))
    found = results(verify(out, data=inputs, run=tiny_run, device="cpu"))
    assert found["case c0"] == AGREES and found["c0 again: map"] == DIFFERS


def test_another_run_or_input_leaves_the_case_unchecked(ct_run, tiny_run, outputs, pictures):
    inputs, out = outputs
    assert results(verify(out, data=inputs, run=ct_run, device="cpu"))["c0 again"] == UNCHECKED
    assert (
        results(verify(out, data=pictures / "val" / "good", run=tiny_run))["one case again"]
        == UNCHECKED
    )


# -- the command -----------------------------------------------------------------------------------
def test_the_command_prints_a_table_and_its_exit_code(copied, pictures, capsys, tmp_path):
    assert main(["verify", str(copied), "--data", str(pictures), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "0 DIFFERS, 0 not checked" in said and "verified" not in said.lower()
    (copied / "split.csv").write_text("")
    assert main(["verify", str(copied), "--data", str(pictures), "--device", "cpu", "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["counts"][DIFFERS] == 1
    assert main(["verify", str(tmp_path)]) == 3


def test_a_folder_that_is_neither_is_refused(tmp_path):
    with pytest.raises(Fault, match="NOT_VERIFIABLE"):
        verify(tmp_path)
