"""A training can be killed, stopped, resumed and extended, and its result is that of the
uninterrupted one."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pseudohealthy.data.load import load
from pseudohealthy.detection.detector import Detector
from pseudohealthy.errors import Fault
from pseudohealthy.processes import World
from pseudohealthy.restorers.apply import Stack
from pseudohealthy.restorers.base import Restoration, Restorer
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.budget import Budget
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.runs.run import Run
from pseudohealthy.training import loop, validation
from pseudohealthy.training import trainer as trainers
from pseudohealthy.training.trackers import open_sink
from pseudohealthy.workflows.train import open_planes, resume, train

pytestmark = pytest.mark.usefixtures("unpainted")
CPU = World(0, 1, torch.device("cpu"))


def weights(run: Run | Path, name: str = "resume") -> dict[str, torch.Tensor]:
    folder = run.folder if isinstance(run, Run) else run
    return checkpoint.load(folder / f"{name}.safetensors")[0]


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def trainer(recipe: Recipe, data: Path, folder: Path) -> loop.Trainer:
    manifest = load(data)
    run = Run.create(
        folder, recipe, data=os.path.relpath(data, folder), manifest_sha256=manifest.sha256
    )
    return loop.Trainer(run, open_planes(run, manifest, CPU), CPU)


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


# -- what a finished run holds ---------------------------------------------------------------------
def test_a_finished_run_holds_the_files_of_the_contract(tiny_run):
    names = {path.name for path in tiny_run.iterdir()}
    assert names >= {
        "recipe.toml",
        "best_model.safetensors",
        "best_model_loss.safetensors",
        "last.safetensors",
        "resume.safetensors",
        "training_history.json",
        "training_curves.png",
        "split.csv",
        "threshold.json",
        "fingerprint.json",
        "run.json",
        "MODEL_CARD.md",
    }
    assert any(name.startswith("diagnostics_epoch_") for name in names)
    record = json.loads((tiny_run / "run.json").read_text())
    assert record["status"] == "finished" and record["step"] == 12
    assert len(record["weights_sha256"]) == 64 and record["command"] and record["torch"]
    text = (
        "".join(path.read_text() for path in tiny_run.glob("*.json"))
        + (tiny_run / "MODEL_CARD.md").read_text()
    )
    assert str(Path.home()) not in text and str(tiny_run.parent) not in text, (
        "a path of the machine"
    )
    history = json.loads((tiny_run / "training_history.json").read_text())
    assert [entry["step"] for entry in history] == [4, 8, 12]
    losses = [entry["validation_loss"] for entry in history]
    assert losses[0] > losses[2] > 0, "it learns"


def test_scores_of_health_are_of_whole_cases_and_the_population_says_whose_planes_they_are(
    tmp_path, tiny
):
    """A diseased volume lends its lesion-free planes to the threshold, and no score: that would be
    of a part of a case."""
    rng, rows = np.random.default_rng(8), ["case_id,patient_id,split,label,image,mask"]
    for name, split, label in (("t", "train", 0), ("h", "val", 0), ("s", "val", 1)):
        np.save(tmp_path / f"{name}.npy", rng.uniform(50, 250, (5, 24, 24)).astype(np.float32))
        rows.append(f"{name},{name},{split},{label},{name}.npy,{'m.npy' if label else ''}")
    mask = np.zeros((5, 24, 24), np.uint8)
    mask[2, 5:9, 5:9] = 1
    np.save(tmp_path / "m.npy", mask)
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    run = train(tiny(), tmp_path, tmp_path / "run", device="cpu")
    stored = run.read_json("threshold.json")
    assert (stored["detail"]["n_cases"], stored["detail"]["n_planes"]) == (2, 9)
    assert (
        stored["detail"]["population"]
        == "healthy patients and lesion-free planes of patients with disease"
    )
    from pseudohealthy.detection.detector import load as detector

    score = detector(run.folder, device="cpu")(tmp_path / "h.npy").score
    assert stored["case_scores"] == pytest.approx([score], abs=1e-5)


def test_the_threshold_is_a_quantile_of_healthy_patients_and_says_so(tiny_run):
    threshold = json.loads((tiny_run / "threshold.json").read_text())
    assert threshold["source"] == "healthy-quantile" and threshold["quantile"] == 0.95
    assert threshold["n_patients"] == 8 and len(threshold["case_scores"]) == 8
    assert threshold["detail"]["population"] == "healthy"
    assert set(threshold["controls"]) >= {"identity", "intensity", "z-score"}
    from pseudohealthy.detection.detector import load as detector

    detect = detector(tiny_run, device="cpu", precision="fp32")
    store = open_planes(detect.run, load(tiny_run / detect.run.record["data"]), CPU)
    rows = store.select("val", 0)
    found = detect.apply([Stack.whole(store.images(rows), store.foreground(rows), [0] * len(rows))])
    above = (found[0].maps > threshold["value"]).float().mean().item()
    assert 0.0 < above <= 0.05, (
        "the share of healthy validation voxels above it is one minus the quantile"
    )


def test_it_learns(pictures, tiny, tmp_path):
    recipe = tiny(
        "training.steps=45",
        "training.rate=0.01",
        "training.validate=15",
        "restorer.diffusion.levels=20",
    )
    run = train(recipe, pictures, tmp_path / "run", device="cpu")
    losses = [
        entry["validation_loss"]
        for entry in json.loads((run.folder / "training_history.json").read_text())
    ]
    assert losses[-1] < 0.8 * losses[0]


# -- interruption ----------------------------------------------------------------------------------
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


# -- failure ---------------------------------------------------------------------------------------
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


# -- labels and best model -------------------------------------------------------------------------
def test_the_best_model_follows_roc_auc_where_labels_exist_and_the_loss_elsewhere(tmp_path):
    class Recorder:
        best: dict = {}
        saved: list[str] = []

        def save_weights(self, name: str) -> None:
            self.saved.append(name)

    def saves(*entries: dict) -> list[list[str]]:
        recorder, found = Recorder(), []
        recorder.best = {}
        for entry in entries:
            recorder.saved = []
            validation.keep_best(recorder, entry)
            found.append(sorted(name.removesuffix(".safetensors") for name in recorder.saved))
        return found

    both = ["best_model", "best_model_loss"]
    assert saves({"validation_loss": 2.0}, {"validation_loss": 1.0}, {"validation_loss": 1.5}) == [
        both,
        both,
        [],
    ]
    labelled = [
        {"validation_loss": v, "validation_auroc": a}
        for v, a in ((1.2, 0.6), (1.0, 0.5), (1.1, 0.7))
    ]
    assert saves(*labelled) == [both, ["best_model_loss"], ["best_model"]]
    assert saves({"validation_loss": float("nan")}) == [[]]


def test_a_network_that_has_learned_little_is_not_the_best_by_roc_auc():
    class Trainer:
        best: dict = {}
        saved = 0

        def save_weights(self, name: str) -> None:
            Trainer.saved = self.step if name == "best_model.safetensors" else Trainer.saved

    trainer = Trainer()
    for trainer.step, (loss, auroc) in enumerate(
        [(9.0, 0.9), (2.0, 0.6), (1.0, 0.5), (1.2, 0.55), (3.0, 0.8)], 1
    ):
        validation.keep_best(trainer, {"validation_loss": loss, "validation_auroc": auroc})
        chosen = {1: 1, 2: 2, 3: 3, 4: 4, 5: 4}[trainer.step]
        assert Trainer.saved == chosen


@pytest.fixture
def labelled(pictures, tmp_path) -> Path:
    """Eight healthy and eight anomalous pictures to validate on."""
    shutil.copytree(pictures, tmp_path / "data")
    shutil.move(tmp_path / "data" / "test" / "bad", tmp_path / "data" / "val" / "bad")
    return tmp_path / "data"


def test_anomalous_validation_planes_give_a_roc_auc_and_pictures_of_it(
    labelled, tiny, tmp_path, monkeypatch
):
    drawn, figure = [], validation.blank
    monkeypatch.setattr(
        validation, "blank", lambda *a, **k: drawn.append(figure(*a, **k)) or drawn[-1]
    )
    run = train(
        tiny("training.steps=2", "training.validate=1"), labelled, tmp_path / "run", device="cpu"
    )
    history = run.read_json("training_history.json")
    assert all(0 <= entry["validation_auroc"] <= 1 for entry in history)
    assert list(run.folder.glob("eval_scores_epoch_*.png"))
    panels = {
        axes.get_xlabel() or axes.get_ylabel(): axes for figure in drawn for axes in figure.axes
    }
    roc = panels["false positive rate"].get_lines()[-1]
    area = np.trapezoid(roc.get_ydata(), roc.get_xdata())
    assert area == pytest.approx(history[-1]["validation_auroc"]), (
        "the curve is that of the figure beside it"
    )
    assert len(panels["anomaly score"].patches) == 60, "two histograms"
    curves = {line.get_label(): line for axes in drawn[-1].axes for line in axes.get_lines()}
    assert curves["validation ROC-AUC"].get_ydata().tolist() == [
        e["validation_auroc"] for e in history
    ]
    assert curves["loss denoiser"].get_xdata().tolist() == [1, 2], (
        "the last step's training loss, too"
    )


@pytest.mark.parametrize(
    "wanted, taken, told",
    [(5, 5, ""), (50, 8, "8 healthy and 8 anomalous planes instead of 50 of each")],
)
def test_a_validation_ranks_as_many_planes_of_each_label_as_asked_for(
    labelled, tiny, tmp_path, monkeypatch, capsys, wanted, taken, told
):
    seen = []
    monkeypatch.setattr(
        validation,
        "draw_scores",
        lambda trainer, scores, value: seen.append([*map(len, scores.values())]),
    )
    recipe = tiny(
        "training.steps=2",
        "training.validate=1",
        f"training.eval_samples={wanted}",
        "training.validation_planes=4",
    )
    train(recipe, labelled, tmp_path / "run", device="cpu")
    assert seen == [[taken, taken]] * 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "validation ROC-AUC" in line]
    assert len(lines) == bool(told) and all(
        told in line and "has no more" in line for line in lines
    ), "said once"


def test_where_time_allows_fewer_planes_than_the_settings_name_the_number_and_the_reason_are_said():
    """15 epochs of 2,000 slices in batches of 8, 49 windows a slice: what the haemorrhage README's
    training allows."""

    class Model:
        network_calls = staticmethod(lambda: 49)

    budget = Budget(batch=8)
    most = validation.most_restored(budget, Model, 375)
    assert (
        most == 18 and validation.most_restored(Budget(batch=8, eval_samples=50), Model, 375) == 50
    )
    said = validation.fewer_ranked(budget, Model, most, 400, 300)
    assert "18 healthy and 18 anomalous planes instead of 128 of each" in said
    assert "49 network calls" in said and "training.eval_samples=N" in said
    assert "the validation split" not in said
    scarce = validation.fewer_ranked(budget, Model, most, 400, 7)
    assert scarce.startswith("validation ROC-AUC: 18 healthy and 7 anomalous")
    assert ": the validation split has no more anomalous ones; a plane takes 49" in scarce
    assert validation.fewer_ranked(budget, Model, most, 18, 7) == "", "all there are"
    assert validation.fewer_ranked(budget, Model, 128, 400, 300) == ""


# -- budget ----------------------------------------------------------------------------------------
def test_steps_or_epochs():
    assert Budget(steps=7).total(1000) == 7
    assert Budget(epochs=2, batch=10).total(1000) == 200
    assert Budget(epochs=0.001, batch=10).total(100) == 1


def test_the_learning_rate_warms_up_and_stays_or_falls_to_zero():
    budget = Budget(rate=1.0, warmup=4)
    assert [budget.rate_at(step, 100) for step in (0, 1, 3, 4, 99)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    cosine = Budget(rate=1.0, warmup=0, decay="cosine")
    assert [cosine.rate_at(step, 100) for step in (0, 50, 100)] == pytest.approx([1.0, 0.5, 0.0])
    assert Budget(rate=1.0, warmup=0).rate_at(0, 100) == 1.0


def test_the_average_follows_the_weights_by_the_plans_decay(pictures, tiny, tmp_path):
    budget = Budget(ema=0.9)
    assert [budget.ema_at(step) for step in (0, 10, 10_000)] == [0.1, 0.55, 0.9]
    training = trainer(tiny(), pictures, tmp_path / "run")
    wanted = copy.deepcopy(training.average.state_dict())
    for step in range(3):
        training.advance()
        decay = training.budget.ema_at(step)
        for key, value in training.restorer.state_dict().items():
            wanted[key] = decay * wanted[key] + (1 - decay) * value
    for key, value in training.average.state_dict().items():
        torch.testing.assert_close(value, wanted[key], atol=1e-6, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in training.average.parameters())


def test_without_averaging_the_weights_themselves_restore(pictures, tiny, tmp_path):
    training = trainer(tiny("training.ema=0"), pictures, tmp_path / "run")
    training.advance()
    assert equal(training.average.state_dict(), training.restorer.state_dict())


def test_every_epoch_shows_every_plane_once_in_another_order(pictures, tiny, tmp_path):
    training = trainer(tiny("training.batch=5"), pictures, tmp_path / "run")
    assert len(training.rows) == 20
    seen = [
        [training.rows[trainers.order(0, epoch, 20)[i]] for i in range(20)] for epoch in range(2)
    ]
    assert sorted(seen[0]) == sorted(seen[1]) == sorted(training.rows) and seen[0] != seen[1]
    first = torch.cat([training.batch(step).images for step in range(4)])
    wanted = training.store.images(np.array(seen[0]))
    assert torch.equal(first, wanted)


def test_the_healthy_statistics_are_those_of_the_training_planes(pictures, tiny, tmp_path):
    training = trainer(tiny(), pictures, tmp_path / "run")
    images = training.store.images(training.store.select("train", 0))
    torch.testing.assert_close(training.restorer.healthy_mean, images.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        training.restorer.healthy_spread, images.std(0, correction=0), atol=1e-4, rtol=0
    )


# -- sinks -----------------------------------------------------------------------------------------
def test_tensorboard_gets_the_history(pictures, tiny, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(
        tiny("training.steps=4", "training.validate=2"),
        pictures,
        tmp_path / "run",
        device="cpu",
        sink="tensorboard",
    )
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    history = run.read_json("training_history.json")
    found = [(event.step, event.value) for event in events.Scalars("validation_loss")]
    assert found == [
        (entry["step"], pytest.approx(entry["validation_loss"], rel=1e-5)) for entry in history
    ]


def test_a_sink_that_is_unknown_or_not_installed_is_refused(tmp_path, monkeypatch):
    with pytest.raises(Fault) as caught:
        open_sink("wandb", tmp_path)
    assert caught.value.exit == 2
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(Fault) as caught:
        open_sink("mlflow", tmp_path)
    assert caught.value.exit == 2 and "pip install" in str(caught.value)


# -- a part whose loss reaches through another -----------------------------------------------------
def test_the_gradient_of_one_part_does_not_leak_into_another(pictures, tiny, tmp_path):
    class Two(Restorer):
        name = "two"

        def __init__(self):
            super().__init__(size=16, channels=1)
            self.first = torch.nn.Linear(1, 1, bias=False)
            self.second = torch.nn.Linear(1, 1, bias=False)

        def parts(self):
            return "first", "second"

        def loss(self, batch, part):
            x = batch.images.flatten(1).mean(1, keepdim=True)
            return (
                (self.second(self.first(x)) if part == "second" else self.first(x))
                .square()
                .flatten()
            )

        def restore(self, images, draw):
            return Restoration(images)

    training = trainer(tiny(), pictures, tmp_path / "run")
    training.restorer = Two()
    training.average = copy.deepcopy(training.restorer)
    training.losses = {
        part: trainers.PartLoss(training.restorer, part) for part in ("first", "second")
    }
    training.optimisers = {
        part: torch.optim.AdamW(training.restorer.get_submodule(part).parameters())
        for part in ("first", "second")
    }
    training.advance()
    assert all(parameter.grad is None for parameter in training.restorer.parameters())


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
