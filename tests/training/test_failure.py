"""A training that cannot go on says why and keeps what it had; what cannot be read is left out and
told."""

from __future__ import annotations

import shutil

import pytest

from pseudohealthy.errors import Fault
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.run import Run
from pseudohealthy.training import trainer as trainers
from pseudohealthy.workflows.train import resume, train

pytestmark = pytest.mark.usefixtures("unpainted")


@pytest.mark.parametrize(
    ("what", "clip"),
    [("loss", 1.0), pytest.param("gradient", 1.0, marks=pytest.mark.slow), ("gradient", 0.0)],
)
def test_a_loss_or_gradient_that_is_not_finite_stops_with_the_saved_state_kept(
    pictures, tiny, tmp_path, monkeypatch, what, clip
):
    loss = trainers.PartLoss.forward
    calls = 0

    def spoilt(self, batch):
        nonlocal calls
        calls += 1
        value = loss(self, batch)
        if calls != 4:
            return value
        if what == "loss":
            return value * float("nan")
        weight = next(self.module.parameters())
        weight.register_hook(lambda gradient: gradient * float("inf"))
        return value

    monkeypatch.setattr(trainers.PartLoss, "forward", spoilt)
    recipe = tiny("training.validate=2", "training.steps=5", f"training.clip={clip}")
    with pytest.raises(Fault) as caught:
        train(recipe, pictures, tmp_path / "run", device="cpu")
    assert caught.value.code == "NONFINITE_LOSS" and "step 3" in str(caught.value)
    # finite, or it would be refused.
    tensors, state, _ = checkpoint.load(tmp_path / "run" / "resume.safetensors")
    assert state["step"] == 2 and len(tensors) > 0
    monkeypatch.undo()
    assert resume(tmp_path / "run", device="cpu").record["step"] == 5


def test_data_without_a_healthy_training_plane_are_refused(pictures, tiny, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(pictures, data)
    shutil.move(data / "train" / "good", data / "train" / "bad")
    with pytest.raises(Fault) as caught:
        train(tiny(), data, tmp_path / "run", device="cpu")
    assert caught.value.code == "NO_HEALTHY" and caught.value.exit == 3


def test_a_canvas_that_the_network_cannot_take_is_a_fault_of_the_recipe(pictures, tiny, tmp_path):
    with pytest.raises(Fault) as caught:
        train(tiny("canvas.size=17"), pictures, tmp_path / "run", device="cpu")
    assert caught.value.exit == 2 and "17" in str(caught.value)


def test_validation_without_labels_or_without_planes_is_no_failure(pictures, tiny, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(pictures, data)
    shutil.rmtree(data / "val")
    patient = {
        path.name: "p" if path.parts[-3] == "train" else path.stem
        for path in data.glob("t*/*/*.png")
    }
    (data / "patients.csv").write_text(
        "file,patient\n" + "".join(f"{k},{v}\n" for k, v in patient.items())
    )
    run = train(tiny("training.steps=3"), data, tmp_path / "run", device="cpu")
    stored = run.read_json("threshold.json")
    assert run.record["status"] == "finished"
    assert stored["value"] is None and stored["n_patients"] == 0, (
        "one patient cannot both train and validate"
    )


def test_a_case_that_cannot_be_read_is_left_out_and_told(pictures, tiny, tmp_path, capsys):
    from pseudohealthy.__main__ import main

    data = tmp_path / "data"
    shutil.copytree(pictures, data)
    broken = sorted((data / "train" / "good").glob("*.png"))[0]
    broken.write_bytes(broken.read_bytes()[:60])
    (tmp_path / "recipe.toml").write_text(tiny("training.steps=2", "training.validate=2").toml())
    line = [
        "train",
        tmp_path / "recipe.toml",
        "--data",
        data,
        "--out",
        tmp_path / "run",
        "--device",
        "cpu",
    ]
    assert main([str(word) for word in line]) == 4
    out, err = capsys.readouterr()
    assert "cases could not be read and were left out" in out and err.count("error[") == 1
    run = Run.open(tmp_path / "run")
    assert run.record["status"] == "finished" and run.record["cases_failed"] == 1
    rows = (run.folder / "split.csv").read_text().splitlines()
    assert rows[0] == "case_id,patient_id,split,label,planes_used,fault"
    (row,) = (row for row in rows if f"/{broken.stem}," in row or row.startswith(f"{broken.stem},"))
    assert row.split(",")[-2] == "0" and row.split(",")[-1].isupper()
    used = [row for row in rows[1:] if row.split(",")[2] == "train" and row.endswith(",1,")]
    assert len(used) == run.record["planes"]
    assert (
        f"- Left out: 1 of {run.record['cases']} cases"
        in (run.folder / "MODEL_CARD.md").read_text()
    )
    assert main(["train", "--resume", str(run.folder), "--steps", "3", "--device", "cpu"]) == 4
