"""A training can be killed, stopped, resumed and extended, and its result is that of the
uninterrupted one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from trained import equal, weights

from pseudohealthy.detection.detector import Detector
from pseudohealthy.errors import Fault
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.runs.run import Run
from pseudohealthy.training import loop
from pseudohealthy.workflows.train import resume, train

pytestmark = pytest.mark.usefixtures("unpainted")


@pytest.fixture
def start(program, tmp_path):
    """``pseudohealthy train`` in a process of its own."""

    def started(recipe: Recipe, data: Path, folder: Path):
        (tmp_path / "recipe.toml").write_text(recipe.toml())
        return program(
            "train", tmp_path / "recipe.toml", "--data", data, "--out", folder, "--device", "cpu"
        )

    return started


def wait_for(condition, process, seconds: float = 400) -> None:
    begun = time.monotonic()
    while not condition():
        assert process.poll() is None, f"it ended early: {process.communicate()[1]}"
        assert time.monotonic() - begun < seconds, "it did not get that far"
        time.sleep(0.01)


def test_resumed_after_kill_9_it_equals_the_uninterrupted_run_bit_for_bit(
    pictures, tiny, tmp_path, start
):
    recipe = tiny(
        "training.steps=20",
        "training.validate=5",
        "restorer.network.block.dropout=0.1",
        "training.augment=affine",
    )
    whole = train(recipe, pictures, tmp_path / "whole", device="cpu")
    process = start(recipe, pictures, tmp_path / "killed")
    wait_for((tmp_path / "killed" / "resume.safetensors").is_file, process)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    step = checkpoint.load(tmp_path / "killed" / "resume.safetensors")[1]["step"]
    assert 0 < step < 20, "killed on the way"
    killed = resume(tmp_path / "killed", device="cpu")
    for name in ("resume", "last", "best_model", "best_model_loss"):
        assert equal(weights(whole, name), weights(killed, name)), name
    assert killed.read_json("threshold.json") == whole.read_json("threshold.json")
    histories = [run.read_json("training_history.json") for run in (whole, killed)]
    histories = [
        [{k: v for k, v in entry.items() if "seconds" not in k} for entry in h] for h in histories
    ]
    assert histories[0] == histories[1]


def test_sigterm_saves_exits_130_and_the_run_goes_on(pictures, tiny, tmp_path, start):
    recipe = tiny("training.steps=20", "training.validate=5")
    process = start(recipe, pictures, tmp_path / "run")
    wait_for((tmp_path / "run" / "resume.safetensors").is_file, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=400)
    last = errors.strip().splitlines()[-1]
    assert process.returncode == 130
    assert last.startswith("error[INTERRUPTED]: stopped at step")
    assert last.endswith(f"go on with: pseudohealthy train --resume {tmp_path / 'run'}")
    assert "Traceback" not in errors
    stopped = Run.open(tmp_path / "run")
    assert stopped.record["status"] == "interrupted" and 5 <= stopped.record["step"] < 20
    assert (
        checkpoint.load(stopped.folder / "resume.safetensors")[1]["step"] == stopped.record["step"]
    )
    resumed = resume(stopped.folder, device="cpu")
    whole = train(recipe, pictures, tmp_path / "whole", device="cpu")
    assert resumed.record["status"] == "finished"
    assert equal(weights(whole), weights(resumed))


def test_a_signal_is_handled_only_while_training():
    before = signal.getsignal(signal.SIGTERM)
    with loop.Signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.seen
        with pytest.raises(KeyboardInterrupt):  # the second one means now
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_finished_run_is_extended_as_if_it_had_been_longer_from_the_start(
    pictures, tiny, tmp_path
):
    short = train(tiny("training.steps=4"), pictures, tmp_path / "short", device="cpu")
    long = train(tiny("training.steps=8"), pictures, tmp_path / "long", device="cpu")
    extended = resume(short.folder, steps=8, device="cpu")
    assert equal(weights(long), weights(extended))
    assert extended.record["step"] == 8 and extended.record["status"] == "finished"


def test_an_extension_that_was_interrupted_keeps_its_own_goal(
    pictures, tiny, tmp_path, monkeypatch
):
    run = train(tiny("training.steps=4"), pictures, tmp_path / "run", device="cpu")
    advance = loop.Trainer.advance

    def stopped_at_7(self):
        values = advance(self)
        if self.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return values

    monkeypatch.setattr(loop.Trainer, "advance", stopped_at_7)
    with pytest.raises(Fault) as caught:
        resume(run.folder, steps=12, device="cpu")
    assert caught.value.exit == 130
    monkeypatch.undo()
    assert resume(run.folder, device="cpu").record["step"] == 12


def test_resuming_a_finished_run_changes_no_weights(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    data = tiny_run / json.loads((tiny_run / "run.json").read_text())["data"]
    again = resume(tmp_path / "run", data=data, device="cpu")
    assert equal(weights(tiny_run), weights(again)) and again.record["step"] == 12


def test_a_trained_run_is_retuned_with_a_new_threshold_and_the_same_weights(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    data = tiny_run / json.loads((tiny_run / "run.json").read_text())["data"]
    settings = ["map.kind=squared", "restorer.walk.draws=1"]
    again = resume(tmp_path / "run", data=data, settings=settings, device="cpu")
    assert equal(weights(tiny_run, "best_model"), weights(again, "best_model"))
    assert (
        Run.open(again.folder).recipe.map["kind"] == "squared"
        and again.record["network_calls"] == 3
    )
    assert (
        again.read_json("threshold.json")["value"]
        != Run.open(tiny_run).read_json("threshold.json")["value"]
    )


@pytest.mark.parametrize(
    "setting, exit",
    [("restorer.network.width=16", 5), ("training.rate=1.0", 2), ("map.kindd=squared", 2)],
)
def test_a_setting_that_would_make_another_run_leaves_it_as_it_was(
    tiny_run, tmp_path, setting, exit
):
    shutil.copytree(tiny_run, tmp_path / "run")
    data = tiny_run / json.loads((tiny_run / "run.json").read_text())["data"]
    with pytest.raises(Fault) as caught:
        resume(tmp_path / "run", data=data, settings=[setting], device="cpu")
    assert caught.value.exit == exit
    for name in ("recipe.toml", "run.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tiny_run / name).read_bytes()


def test_other_data_than_the_run_began_with_are_refused(tiny_run, tmp_path, pictures):
    shutil.copytree(tiny_run, tmp_path / "run")
    shutil.copytree(pictures, tmp_path / "data")
    os.remove(next((tmp_path / "data" / "train" / "good").iterdir()))
    with pytest.raises(Fault) as caught:
        resume(tmp_path / "run", data=tmp_path / "data", device="cpu")
    assert (caught.value.code, caught.value.exit) == ("DATA_CHANGED", 2)


def test_data_without_their_copies_are_the_same_data_when_resumed(pictures, tiny, tmp_path):
    shutil.copytree(pictures, tmp_path / "data")
    first = sorted((tmp_path / "data" / "train" / "good").iterdir())[0]
    shutil.copy(first, first.with_name("zz-copy.png"))
    with pytest.raises(Fault, match="DUPLICATE"):
        train(tiny(), tmp_path / "data", tmp_path / "run", device="cpu", steps=2)
    run = train(
        tiny(),
        tmp_path / "data",
        tmp_path / "run",
        device="cpu",
        steps=2,
        dedupe=True,
        overwrite=True,
    )
    assert run.record["planes"] == 20 and "copy" not in (run.folder / "split.csv").read_text()
    assert resume(run.folder, device="cpu", steps=4).record["step"] == 4


def test_overwriting_a_run_starts_from_the_beginning(pictures, tiny, tmp_path):
    first = train(tiny("training.steps=4"), pictures, tmp_path / "run", device="cpu")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    before = weights(first)
    with pytest.raises(Fault) as caught:
        train(tiny("training.steps=4"), pictures, tmp_path / "run", device="cpu")
    assert (caught.value.code, caught.value.exit) == ("OUTPUT_NOT_EMPTY", 6)
    assert equal(weights(first), before)
    second = train(
        tiny("training.steps=4", "training.seed=1"),
        pictures,
        tmp_path / "run",
        device="cpu",
        overwrite=True,
    )
    fresh = train(
        tiny("training.steps=4", "training.seed=1"), pictures, tmp_path / "fresh", device="cpu"
    )
    assert equal(weights(second), weights(fresh)) and not equal(weights(second), before)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_stopped_while_its_threshold_is_set_it_says_how_to_go_on(
    tiny_run, tmp_path, capsys, monkeypatch
):
    shutil.copytree(tiny_run, tmp_path / "run")
    data = tiny_run / json.loads((tiny_run / "run.json").read_text())["data"]

    def stopped(trainer):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop.finish, "finish", stopped)
        with pytest.raises(Fault, match=f"--resume {tmp_path}/run") as caught:
            resume(tmp_path / "run", data=data, device="cpu")
    assert (caught.value.code, caught.value.exit) == ("INTERRUPTED", 130)
    run = Run.open(tmp_path / "run")
    assert run.record["status"] == "interrupted"
    run.note(weights_sha256="0" * 64)  # as where the weights are those of an extension
    capsys.readouterr()
    Detector(run, device="cpu")
    assert "was set for earlier weights" in capsys.readouterr().err
    assert resume(run.folder, data=data, device="cpu").record["status"] == "finished"
    Detector(Run.open(run.folder), device="cpu")
    assert "earlier weights" not in capsys.readouterr().err
