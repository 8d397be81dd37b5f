"""Minutes become steps, the run ends in time, and what is coming is said after the first steps."""

from __future__ import annotations

import re
import shutil

import pytest
import torch

from pseudohealthy.errors import Fault
from pseudohealthy.runs import checkpoint
from pseudohealthy.training import loop, pace
from pseudohealthy.training.trainer import Trainer
from pseudohealthy.workflows import train as workflow
from pseudohealthy.workflows.train import resume, train

pytestmark = pytest.mark.usefixtures("unpainted")


def weights(run, name="resume"):
    return checkpoint.load(run.folder / f"{name}.safetensors")[0]


@pytest.fixture
def slow(monkeypatch):
    """Steps that seem to take half a second each, validations one, on a clock that nothing else
    moves."""
    now, advance, look = [1000.0], Trainer.advance, loop.look

    def step(self):
        now[0] += slow.step
        return advance(self)

    def looked(*given):
        now[0] += 1.2
        return look(*given)

    slow = type("Slow", (), {"step": 0.5, "now": now})
    for module in (pace, loop, workflow):
        monkeypatch.setattr(
            module, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now[0])})
        )
    monkeypatch.setattr(Trainer, "advance", step)
    monkeypatch.setattr(loop, "look", looked)
    return slow


def test_a_run_of_minutes_ends_in_time_and_is_that_of_the_steps_it_settled_on(
    pictures, tiny, tmp_path, slow, capsys
):
    recipe = tiny("training.decay=cosine", "training.validate=0")
    run = train(recipe, pictures, tmp_path / "timed", minutes=0.4, device="cpu")
    took, steps = slow.now[0] - 1000, run.record["steps"]
    assert 12 < took <= 24 and steps >= 10
    said = capsys.readouterr().err
    assert f"{steps} steps fit into 24 s on this machine" in said
    assert (
        run.record["status"] == "finished"
        and run.record["step"] == steps
        and run.record["minutes"] == 0.4
    )
    settled = run.recipe.training
    assert (settled["steps"], settled["minutes"]) == (steps, 0.0) and settled["validate"] > 0
    again = train(tmp_path / "timed" / "recipe.toml", pictures, tmp_path / "again", device="cpu")
    for name in ("resume", "best_model"):
        first, second = weights(run, name), weights(again, name)
        assert first.keys() == second.keys() and all(
            torch.equal(first[k], second[k]) for k in first
        )


def test_where_not_one_step_fits_it_says_so_and_how_long_one_takes(
    pictures, tiny, tmp_path, slow, capsys
):
    run = train(tiny("training.validate=0"), pictures, tmp_path / "run", minutes=0.01, device="cpu")
    said = capsys.readouterr().err
    assert "not one step fits into 0.6 s on this machine" in said and "one is taken, about " in said
    assert run.record["steps"] == 1 and "1 step of " in said and "fit into 0.6" not in said


def test_a_machine_that_becomes_slower_finishes_earlier_and_says_so(
    pictures, tiny, tmp_path, slow, capsys, monkeypatch
):
    settle = pace.settle

    def then_slower(trainer, found):
        settle(trainer, found)
        slow.step = 1.5

    monkeypatch.setattr(loop, "settle", then_slower)
    run = train(tiny("training.validate=0"), pictures, tmp_path / "run", minutes=0.4, device="cpu")
    assert slow.now[0] - 1000 <= 26
    assert run.record["steps"] == run.record["step"] < run.record["steps_settled"]
    assert "the time is nearly up" in capsys.readouterr().err and run.record["status"] == "finished"
    assert resume(run.folder, device="cpu").record["step"] == run.record["step"], "it is finished"


@pytest.mark.slow
def test_an_interrupted_run_of_minutes_goes_on_to_the_steps_it_settled_on(
    pictures, tiny, tmp_path, slow, monkeypatch
):
    look = loop.look

    def stopping(trainer, *given):
        look(trainer, *given)
        if len(trainer.history) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "look", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(tiny("training.validate=0"), pictures, tmp_path / "run", minutes=0.4, device="cpu")
    monkeypatch.setattr(loop, "look", look)
    run = resume(tmp_path / "run", device="cpu")
    whole = train(tmp_path / "run" / "recipe.toml", pictures, tmp_path / "whole", device="cpu")
    assert run.record["step"] == run.recipe.training["steps"] > 4
    first, second = weights(run), weights(whole)
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_minutes_extend_a_finished_run(pictures, tiny_run, tmp_path, slow):
    shutil.copytree(tiny_run, tmp_path / "run")
    run = resume(tmp_path / "run", data=pictures, minutes=0.3, device="cpu")
    assert slow.now[0] - 1000 <= 18 and run.record["step"] == run.record["steps"] > 12


def test_what_is_coming_is_said_once_after_the_first_steps(pictures, tiny, tmp_path, slow, capsys):
    slow.step = 8.0
    train(
        tiny("training.steps=40", "training.validate=20"), pictures, tmp_path / "run", device="cpu"
    )
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "on this machine" in line)
    found = re.fullmatch(
        r"40 steps, about (\d+) min on this machine; --minutes (\d) would do about (\d+)", line
    )
    assert found and found[1] in ("5", "6") and found[2] == "1" and 1 <= int(found[3]) < 8


@pytest.mark.parametrize(
    "given",
    [
        {"minutes": 1.0, "steps": 3},
        {"minutes": 1.0, "epochs": 1.0},
        {"minutes": 0.0},
        {"minutes": -1.0},
        {"minutes": float("nan")},
    ],
)
def test_a_budget_is_given_in_one_way(pictures, tiny, tmp_path, given):
    with pytest.raises(Fault) as caught:
        train(tiny(), pictures, tmp_path / "run", device="cpu", **given)
    assert caught.value.exit == 2 and not (tmp_path / "run").exists()
