"""A finished run holds what it should; budget, average, order of planes and sinks are as asked
for."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from trained import CPU, equal, trainer

from pseudohealthy.data.load import load
from pseudohealthy.errors import Fault
from pseudohealthy.restorers.apply import Stack
from pseudohealthy.restorers.base import Restoration, Restorer
from pseudohealthy.runs.budget import Budget
from pseudohealthy.training import trainer as trainers
from pseudohealthy.training.trackers import open_sink
from pseudohealthy.workflows.train import open_planes, train

pytestmark = pytest.mark.usefixtures("unpainted")


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
