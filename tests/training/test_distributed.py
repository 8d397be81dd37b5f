"""The same words on two processes as on one."""

from __future__ import annotations

import pytest
import torch

from pseudohealthy.devices import pick_device
from pseudohealthy.errors import Fault
from pseudohealthy.processes import World, join
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.run import Run
from pseudohealthy.training import loop
from pseudohealthy.workflows.train import open_planes, train

pytestmark = pytest.mark.usefixtures("unpainted")


def test_two_processes_give_the_weights_of_one_at_the_same_global_batch(
    pictures, tiny, tmp_path, in_two_processes
):
    recipe = tiny(
        "training.steps=6", "training.validate=3", "training.batch=8", "training.augment=affine"
    )
    one = train(recipe, pictures, tmp_path / "one", device="cpu")
    (tmp_path / "recipe.toml").write_text(recipe.toml())
    done = in_two_processes(
        "train",
        tmp_path / "recipe.toml",
        "--data",
        pictures,
        "--out",
        tmp_path / "two",
        "--device",
        "cpu",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    two = Run.open(tmp_path / "two")
    assert two.record["processes"] == 2 and two.record["status"] == "finished"
    assert done.stderr.count("parameters,") == 1, "only the first process talks"
    for name in ("last", "best_model_loss", "resume"):
        first, second = (
            checkpoint.load(run.folder / f"{name}.safetensors")[0] for run in (one, two)
        )
        assert first.keys() == second.keys()
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, atol=1e-5, rtol=1e-5, msg=key)
    assert two.read_json("threshold.json")["value"] == pytest.approx(
        one.read_json("threshold.json")["value"], abs=1e-4
    )


@pytest.mark.slow
def test_what_is_not_shared_is_done_by_the_first_process(
    pictures, tiny_run, tmp_path, in_two_processes, command
):
    """evaluate and the others: two processes write what one does, and none finds the folder
    taken."""
    words = ["evaluate", tiny_run, "--data", pictures, "--device", "cpu", "--out"]
    for start, out in ((in_two_processes, "two"), (command, "one")):
        done = start(*words, tmp_path / out)
        assert done.returncode == 0, done.stderr[-2000:]
        assert (done.stdout + done.stderr).count("report: ") == 1
    assert (tmp_path / "two/cases.csv").read_text() == (tmp_path / "one/cases.csv").read_text()


def test_a_batch_that_does_not_divide_is_refused(pictures, tiny, tmp_path):
    run = Run.create(tmp_path / "run", tiny("training.batch=5"))
    from pseudohealthy.data.load import load

    store = open_planes(run, load(pictures), World(0, 1, torch.device("cpu")))
    with pytest.raises(Fault) as caught:
        loop.Trainer(run, store, World(0, 2, torch.device("cpu")))
    assert caught.value.exit == 2 and "5" in str(caught.value)


def test_without_torchrun_one_process_is_the_whole_world(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = join("cpu")
    assert world == World(0, 1, torch.device("cpu")) and world.first
    assert world.mean(1.5) == 1.5 and world.any(True) and not world.any(False)


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    for choice in ("cuda", "cuda:1", "gpu"):
        with pytest.raises(Fault) as caught:
            pick_device(choice)
        assert caught.value.code == "DEVICE" and caught.value.exit == 2
