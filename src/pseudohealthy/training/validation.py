"""Validation while a method trains: loss, ROC-AUC of planes where labels exist, and pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.design import tokens
from pseudohealthy.design.figures import blank, save
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.io.tiles import tiled
from pseudohealthy.metrics import curves
from pseudohealthy.progress import say
from pseudohealthy.restorers.apply import Applied, How, Stack, apply, keys
from pseudohealthy.restorers.base import Batch, Restorer
from pseudohealthy.training.plane_store import chunks, spread_out

if TYPE_CHECKING:
    from pseudohealthy.runs.budget import Budget
    from pseudohealthy.training.trainer import Trainer

# Network calls that a validation may spend on restoring: at most CALLS, and SHARE of batch x steps
# since the last one. A training step costs about three calls an image (forward and backward), so
# that .6 is a fifth of the training.
CALLS, SHARE = 6_000, 0.6
FEWEST = 16  # planes of each label, whatever they cost: fewer give no ROC-AUC worth the name
LIGHT = tokens("light")
LEARNED = 0.25  # share by which the loss of what is chosen by ROC-AUC may exceed the lowest


def validate(trainer: Trainer, entry: dict[str, Any]) -> dict[str, float]:
    """Loss of the averaged weights on healthy validation planes, and ROC-AUC if labelled.

    Noise levels and noise are the same at every validation.

    Args:
        entry: The history's entry of this step so far, for the curves.
    """
    budget, store, model = trainer.budget, trainer.store, trainer.average
    healthy = spread_out(store.select("val", HEALTHY), budget.validation_planes)
    result: dict[str, float] = {}
    with torch.no_grad():
        if len(healthy):
            losses = dict.fromkeys(model.parts(), 0.0)
            for rows in chunks(healthy, budget.batch):
                batch = validation_batch(trainer, rows)
                with torch.autocast(
                    trainer.world.device.type,
                    torch.bfloat16,
                    enabled=trainer.precision == torch.bfloat16,
                ):
                    for part in losses:
                        losses[part] += model.loss(batch, part).float().sum().item()
            result |= {
                f"validation_loss_{part}": value / len(healthy) for part, value in losses.items()
            }
            result["validation_loss"] = sum(losses.values()) / len(healthy)
        else:
            result["validation_loss"] = (
                float("nan") if not trainer.history else trainer.history[-1]["validation_loss"]
            )
        anomalous = store.select("val", ANOMALOUS)
        if len(anomalous) and len(healthy):
            per_label = most_restored(budget, model, budget.every(trainer.total))
            pool = store.select("val", HEALTHY) if budget.eval_samples else healthy
            pairs = [
                (HEALTHY, spread_out(pool, per_label)),
                (ANOMALOUS, spread_out(anomalous, per_label)),
            ]
            if not trainer.history and (
                notice := fewer_ranked(budget, model, per_label, len(pool), len(anomalous))
            ):
                say(notice)
            scores = {label: plane_scores(trainer, rows) for label, rows in pairs}
            result["validation_auroc"] = auroc(scores[HEALTHY], scores[ANOMALOUS])
            draw_scores(trainer, scores, result["validation_auroc"])
    draw_diagnostics(trainer, healthy, anomalous)
    draw_curves(trainer, [*trainer.history, entry | result])
    return result


def most_restored(budget: Budget, model: Restorer, every: int) -> int:
    """Planes of each label that a validation restores, `every` steps after the last one."""
    if budget.eval_samples:
        return budget.eval_samples
    calls = min(CALLS, SHARE * budget.batch * every)
    return max(
        FEWEST, min(budget.validation_planes, int(calls / max(1, model.network_calls()))) // 2
    )


def fewer_ranked(
    budget: Budget, model: Restorer, per_label: int, healthy: int, anomalous: int
) -> str:
    """One line with the reason where a ROC-AUC is over fewer planes than the settings name, else
    "".

    Args:
        per_label: Planes of each label that a validation restores.
        healthy, anomalous: Validation planes that there are.
    """
    target = budget.eval_samples or budget.validation_planes // 2
    opening = (
        f"validation ROC-AUC: {min(per_label, healthy)} healthy and {min(per_label, anomalous)}"
        f" anomalous planes instead of {target} of each: "
    )
    if budget.eval_samples:
        return (
            f"{opening}the validation split has no more" if min(healthy, anomalous) < target else ""
        )
    if per_label >= min(target, max(healthy, anomalous)):
        return ""
    calls = model.network_calls()
    scarce = " or ".join(
        name
        for name, count in (("healthy", healthy), ("anomalous", anomalous))
        if count <= per_label
    )
    scarce = f"the validation split has no more {scarce} ones; " if scarce else ""
    return (
        f"{opening}{scarce}a plane takes {many(calls, 'network call')}, and a validation may take"
        " about a fifth of the training; --set training.eval_samples=N takes N of each"
    )


def keep_best(trainer: Trainer, entry: dict[str, Any]) -> None:
    """Save best_model by validation ROC-AUC, or by loss without labels, and best_model_loss by
    loss.

    A network that has learned little restores noise, and its ROC-AUC is that of a control: what is
    chosen by ROC-AUC must have learned nearly as much as the best by loss.
    """
    loss, auroc, best = entry["validation_loss"], entry.get("validation_auroc"), trainer.best
    if loss < best.get("loss", math.inf):
        best["loss"] = loss
        trainer.save_weights("best_model_loss.safetensors")
        if auroc is None:
            trainer.save_weights("best_model.safetensors")
    if auroc is None or not learned(loss, best):
        return
    if auroc > best.get("auroc", -math.inf) or not learned(best.get("auroc_loss", math.inf), best):
        best |= {"auroc": auroc, "auroc_loss": loss}
        trainer.save_weights("best_model.safetensors")


def learned(loss: float, best: dict[str, float]) -> bool:
    """Whether a validation loss is within LEARNED of the lowest so far."""
    lowest = best.get("loss", math.inf)
    return not loss - lowest > LEARNED * abs(lowest)


def validation_batch(trainer: Trainer, rows: np.ndarray) -> Batch:
    """Planes under noise levels and noise of their own, for the loss."""
    draw = Draw(trainer.budget.seed, [("validation", int(row)) for row in rows])
    return batch_of(trainer, rows, draw)


def detected_batch(trainer: Trainer, rows: np.ndarray) -> Batch:
    """Planes under the noise that `detect` restores them with."""
    return batch_of(trainer, rows, Draw(trainer.budget.seed, keys(places(trainer, rows))))


def batch_of(trainer: Trainer, rows: np.ndarray, draw: Draw) -> Batch:
    store, device = trainer.store, trainer.world.device
    labels = trainer.labels(rows).to(device) if trainer.restorer.uses_labels else None
    return Batch(store.images(rows).to(device), store.foreground(rows).to(device), labels, draw)


def places(trainer: Trainer, rows: np.ndarray) -> list[int]:
    """The position of each cached plane in its case."""
    return trainer.store.index["plane"].to_numpy()[rows].tolist()


def applied(
    trainer: Trainer, cases: Sequence[np.ndarray], model: Restorer | None = None
) -> list[Applied]:
    """Maps and scores of cases, as `detect` computes them.

    Args:
        cases: The rows of each case's planes.
        model: A restorer; None for the averaged one.
    """
    store = trainer.store
    stacks = [
        Stack.whole(store.images(rows), store.foreground(rows), places(trainer, rows))
        for rows in cases
    ]
    how = How(seed=trainer.budget.seed, device=trainer.world.device, precision=trainer.precision)
    return apply(model or trainer.average, trainer.run.recipe.make_map(), stacks, how)


def plane_scores(trainer: Trainer, rows: np.ndarray) -> np.ndarray:
    """The score of each plane, taken as a case of its own."""
    parts = (applied(trainer, chunks(part, 1)) for part in chunks(rows, trainer.budget.batch))
    return np.array([result.score for part in parts for result in part])


def auroc(healthy: np.ndarray, anomalous: np.ndarray) -> float:
    """Area under the ROC curve."""
    scores = np.concatenate([healthy, anomalous])
    return float(
        curves.auroc(scores, np.repeat([HEALTHY, ANOMALOUS], [len(healthy), len(anomalous)]))
    )


def epoch_of(trainer: Trainer) -> int:
    return max(1, round(trainer.step * trainer.budget.batch / len(trainer.rows)))


def draw_diagnostics(trainer: Trainer, healthy: np.ndarray, anomalous: np.ndarray) -> None:
    """Draw diagnostics_epoch_N.png: input, healthy twin and anomaly map of a few validation planes.

    Channels stand side by side, and all maps have one scale.
    """
    rows = np.concatenate([spread_out(healthy, 3), spread_out(anomalous, 3)])
    if len(rows) == 0:
        return
    images, results = trainer.store.images(rows), applied(trainer, chunks(rows, 1))
    twins, maps = (
        torch.cat([result.healthy for result in results]),
        torch.cat([result.maps for result in results]),
    )
    labels = ["healthy"] * min(3, len(healthy)) + ["anomalous"] * min(3, len(anomalous))
    top = (
        max(1e-6, float(maps.flatten().float().quantile(0.999)))
        if maps.numel() < 1e7
        else float(maps.max())
    )
    fig = blank(1.7 * len(rows), 5.4)
    axes = fig.subplots(3, len(rows), squeeze=False)
    for column, label in enumerate(labels):
        pictures = (
            (images, "gray", -1, 1),
            (twins, "gray", -1, 1),
            (maps[:, None], "inferno", 0, top),
        )
        for row, (picture, colours, low, high) in enumerate(pictures):
            pixels = tiled(picture[column].float().cpu().numpy())
            image = axes[row][column].imshow(pixels, cmap=colours, vmin=low, vmax=high)
            axes[row][column].set_xticks([])
            axes[row][column].set_yticks([])
        axes[0][column].set_title(label, fontsize=9)
    for row, text in enumerate(("input", "healthy twin", "anomaly map")):
        axes[row][0].set_ylabel(text, fontsize=9)
    fig.colorbar(image, ax=list(axes[2]), fraction=0.03, label="anomaly map")
    fig.suptitle(f"{trainer.run.recipe.name}, step {trainer.step} (validation)", fontsize=10)
    save(fig, trainer.run.folder / f"diagnostics_epoch_{epoch_of(trainer)}.png", dpi=110, cut=False)


def draw_scores(trainer: Trainer, scores: dict[int, np.ndarray], value: float) -> None:
    """Draw eval_scores_epoch_N.png: histogram of validation scores by label, and ROC curve."""
    fig = blank(8, 3.4)
    left, right = fig.subplots(1, 2, width_ratios=(3, 2))
    edges = np.histogram_bin_edges(np.concatenate(list(scores.values())), bins=30)
    for label, colour, text in (
        (HEALTHY, LIGHT["healthy"], "healthy"),
        (ANOMALOUS, LIGHT["anomalous"], "anomalous"),
    ):
        left.hist(
            scores[label],
            bins=edges,
            alpha=0.6,
            color=colour,
            label=f"{text} (n = {len(scores[label])})",
        )
    left.set(xlabel="anomaly score", ylabel="validation planes")
    left.locator_params(axis="y", integer=True)
    left.legend()
    labels = np.repeat([HEALTHY, ANOMALOUS], [len(scores[HEALTHY]), len(scores[ANOMALOUS])])
    roc = curves.curve(np.concatenate([scores[HEALTHY], scores[ANOMALOUS]]), labels)
    right.plot([0, 1], [0, 1], color=LIGHT["quiet"], alpha=0.5, linewidth=1, label="chance")
    right.plot(*roc.roc_points(), color=LIGHT["healthy"], linewidth=2, label=f"area {value:.3f}")
    right.set(
        xlabel="false positive rate",
        ylabel="true positive rate",
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.02),
    )
    right.set_aspect("equal")
    right.legend(loc="lower right")
    fig.suptitle(
        f"{trainer.run.recipe.name}, step {trainer.step}: ROC-AUC {value:.3f} (validation)",
        fontsize=10,
    )
    save(fig, trainer.run.folder / f"eval_scores_epoch_{epoch_of(trainer)}.png", dpi=110, cut=False)


def draw_curves(trainer: Trainer, history: list[dict[str, Any]]) -> None:
    """Draw training_curves.png: training and validation loss over steps, and ROC-AUC if any."""
    ranked = [(e["step"], e["validation_auroc"]) for e in history if "validation_auroc" in e]
    fig = blank(9.6 if ranked else 6, 3.6)
    axes = fig.subplots(1, 2 if ranked else 1, squeeze=False)[0]
    for key in sorted(
        {k for entry in history for k in entry if k.startswith(("loss_", "validation_loss_"))}
    ):
        points = [(e["step"], e[key]) for e in history if key in e]
        axes[0].plot(*zip(*points, strict=True), marker="o", ms=3, label=key.replace("_", " "))
    axes[0].set(xlabel="step", ylabel="loss", yscale="log")
    if axes[0].get_lines():
        axes[0].legend(fontsize=8)
    if ranked:
        axes[1].axhline(0.5, color=LIGHT["quiet"], alpha=0.5, linewidth=1, label="chance")
        axes[1].plot(
            *zip(*ranked, strict=True),
            color=tokens("methods")["green"],
            marker="s",
            ms=4,
            label="validation ROC-AUC",
        )
        axes[1].set(xlabel="step", ylabel="ROC-AUC of planes", ylim=(0, 1.02))
        axes[1].legend(fontsize=8)
    fig.suptitle(trainer.run.recipe.name, fontsize=10)
    save(fig, trainer.run.folder / "training_curves.png", dpi=110, cut=False)
