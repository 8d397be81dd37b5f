"""The best model follows ROC-AUC where labels exist and the loss elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pseudohealthy.runs.budget import Budget
from pseudohealthy.training import validation
from pseudohealthy.workflows.train import train

pytestmark = pytest.mark.usefixtures("unpainted")


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
