"""Published checkpoints to runs: the command ``import-weights``.

Pickle is read with torch's restricted loader only. Settings come from the shapes; those that shapes
do not show come from the published code, are measured (`interop.probe`) or set by the user.
Anything that is not wholly understood is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from pseudohealthy.counts import many
from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.diffusion.denoiser import Denoiser
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import BAD_MODEL, USAGE, Fault
from pseudohealthy.interop import diffusers, hub, thor
from pseudohealthy.interop.checkpoint_files import read
from pseudohealthy.interop.probe import Findings, head, probe
from pseudohealthy.interop.systems import SYSTEMS, Imported, State, recognised
from pseudohealthy.io.atomic import write_text
from pseudohealthy.networks.perceptual import Perceptual
from pseudohealthy.progress import say
from pseudohealthy.restorers.base import Restorer
from pseudohealthy.restorers.conditioned import Conditioned
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.runs.run import Run, now
from pseudohealthy.settings import ranges

# The latter: a classifier without its denoiser.
BEST, WAITING = ("best_model.safetensors", "classifier.safetensors")
DENOISER, CLASSIFIER = "denoiser.network", "classifier"


def import_weights(
    system: str,
    file: Path | str,
    out: Path | str,
    *,
    settings: Iterable[str] = (),
    overwrite: bool = False,
) -> Run:
    """Make a run of a published checkpoint.

    Wolleb's two files go into one run, in any order; until then the run restores without guidance,
    or, with the classifier alone, not at all.

    Args:
        system: wolleb, wolleb-classifier, anoddpm, thor, pddpm, cddpm or diffusers.
        file: ``.pt`` or ``.ckpt`` (weights only), or ``.safetensors``; of diffusers the folder of a
            model or a pipeline, or its id on the Hugging Face hub (fetched, where huggingface_hub
            is installed).
        out: Folder of the run.
        settings: ``section.key=value`` texts for what a file does not say (canvas.normalise,
            restorer.network.attention.heads).
        overwrite: Whether a run that lies there may be written over.

    Raises:
        Fault: SYSTEM (exit 2); CHECKPOINT_* (exit 5) for a file that is damaged, unsafe, of another
            system or not finite.
    """
    if system not in SYSTEMS:
        raise Fault(
            "SYSTEM", f"there is no system '{system}'", f"one of: {', '.join(SYSTEMS)}", exit=USAGE
        )
    file, out, settings = Path(file), Path(out), tuple(settings)
    folder = system == "diffusers"
    imported = (
        diffusers.read_folder(hub.fetched(file)) if folder else understood(system, read(file), file)
    )
    record = {
        part: {"system": system, "file": file.name, "sha256": checkpoint.digest(tensors)}
        for part, tensors in imported.parts.items()
    }
    recipe = Recipe(
        f"imported-{system}",
        f"imported weights: {system}",
        SYSTEMS[system].source,
        canvas=imported.canvas,
        restorer=imported.restorer,
    )
    if system.startswith("wolleb"):
        before = waiting(
            out, CLASSIFIER if system == "wolleb" else DENOISER, mine=next(iter(imported.parts))
        )
        if before is not None:
            recipe, overwrite = joined(before, imported, record, file), True
        elif system == "wolleb":
            recipe.restorer.setdefault("guidance", {})["scale"] = 0.0  # nothing to guide with yet
    restorer = copy.deepcopy(recipe).set(settings).make_restorer()
    for path, tensors in imported.parts.items():
        fill(restorer, path, tensors, file)
    alone = system == "wolleb-classifier" and DENOISER not in record
    findings, notes = (None, []) if alone else examine(system, restorer, recipe)
    run = Run.create(out, recipe.set(settings), overwrite=overwrite)
    return save(run, restorer, record, findings, [*imported.notes, *notes])


def understood(system: str, state: State, file: Path) -> Imported:
    """Settings and parts of a state dict.

    Raises:
        Fault: CHECKPOINT_MISMATCH (exit 5) where it is not of this system.
    """
    actual, reader = recognised(state), SYSTEMS[system].read
    if actual != system or reader is None:
        names = ", ".join(
            f"{name} {tuple(tensor.shape)}" for name, tensor in list(state.items())[:3]
        )
        raise Fault(
            "CHECKPOINT_MISMATCH",
            f"{file.name} is of {actual or 'no system known here'}, not of {system}: {names}",
            f"import it as {actual}" if actual else f"systems: {', '.join(SYSTEMS)}",
            exit=BAD_MODEL,
        )
    try:
        return reader(state)
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise Fault(
            "CHECKPOINT_MISMATCH",
            f"{file.name} is no complete {system} network: {error}",
            "use an unchanged file",
            exit=BAD_MODEL,
        ) from None


def fill(restorer: Restorer, path: str, tensors: State, file: Path) -> None:
    """Load one part, whose names and shapes are compared first."""
    module = restorer.get_submodule(path)
    if isinstance(module, Perceptual):
        module.load_weights(dict(tensors))
        return
    checkpoint.compare(
        file, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, module.state_dict()
    )
    module.load_state_dict(tensors)


def waiting(out: Path, other: str, mine: str) -> tuple[Run, State, dict[str, Any]] | None:
    """The run in `out`, its network and its record, if it holds only the `other` of Wolleb's two.

    None if it holds `mine`, too, or no run is there.
    """
    if not (out / "recipe.toml").is_file():
        return None
    run = Run.open(out)
    earlier = run.record.get("imported", {})
    if other not in earlier or mine in earlier:
        return None
    tensors, _, _ = checkpoint.load(out / (WAITING if other == CLASSIFIER else BEST))
    prefix = f"{other}."
    return (
        run,
        {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)},
        earlier,
    )


def joined(
    before: tuple[Run, State, dict[str, Any]],
    imported: Imported,
    record: dict[str, Any],
    file: Path,
) -> Recipe:
    """The recipe of both of Wolleb's networks; `imported` and `record` get the earlier one."""
    run, tensors, earlier = before
    recipe = copy.deepcopy(run.recipe)
    if recipe.canvas["channels"] != imported.canvas["channels"]:
        raise Fault(
            "CHECKPOINT_MISMATCH",
            f"{file.name} takes {many(imported.canvas['channels'], 'channel')}, the network in "
            f"'{run.name}' {recipe.canvas['channels']}",
            "import the two networks of one model",
            exit=BAD_MODEL,
        )
    recipe.name = "imported-wolleb"
    recipe.summary = "imported weights: wolleb and wolleb-classifier"
    # The classifier alone knows the size of its images.
    recipe.canvas |= {} if CLASSIFIER in earlier else imported.canvas
    guidance = (
        recipe.restorer.get("guidance", {})
        | imported.restorer.get("guidance", {})
        | {"scale": 100.0}
    )
    recipe.restorer |= imported.restorer | {"guidance": guidance}
    imported.parts[next(iter(earlier))] = tensors
    record |= earlier
    return recipe


def examine(system: str, restorer: Restorer, recipe: Recipe) -> tuple[Findings, list[str]]:
    """What the weights were trained for, and notes for the user; the recipe is set accordingly."""
    restorer.eval()
    denoiser = restorer.get_submodule("model.denoiser" if system == "cddpm" else "denoiser")
    assert isinstance(denoiser, Denoiser)
    condition: dict[str, Any] = (
        {"label": HEALTHY} if getattr(restorer, "conditional", False) else {}
    )
    if isinstance(restorer, Conditioned):
        with torch.no_grad():
            condition = {
                "vector": restorer.model.context(head(restorer.channels, restorer.size) * 2 - 1)
            }
    findings, notes = probe(denoiser, restorer.channels, restorer.size, **condition), []
    if findings.answer == "2 noise - 1":
        noise = Draw(0, [0]).noise(head(restorer.channels, restorer.size))
        if system == "thor" and thor.repair(denoiser.network, noise):  # type: ignore[arg-type]
            notes.append(
                "the weights answered 2 noise - 1, a slip of the published trainer: rescaled to"
                " answer the noise"
            )
            findings = probe(denoiser, restorer.channels, restorer.size, **condition)
        else:
            notes.append(
                "the weights answer 2 noise - 1, not the noise: restorations will be far too bright"
            )
    settings = ranges(type(restorer), "restorer")
    if "restorer.guidance.data_range" in settings and findings.data_range != "undecided":
        recipe.restorer["guidance"]["data_range"] = findings.data_range
    elif findings.data_range == "unit":
        notes.append(
            "the weights were trained on images in [0, 1], this method gives [-1, 1]: expect biased"
            " restorations"
        )
    if "restorer.diffusion.noise" in settings and findings.noise != "undecided":
        recipe.restorer.setdefault("diffusion", {})["noise"] = findings.noise
        if system == "thor" and findings.noise == "simplex":
            published = {
                "walk": {"start_levels": [250]},
                "harmonise": {"levels": [200, 150, 100, 50]},
            }
            recipe.restorer |= published
    if system.startswith("wolleb"):
        notes.append(
            "label 0 is taken as healthy: weights of the released CheXpert loader have it the other"
            " way round"
        )
    return findings, notes


def save(
    run: Run,
    restorer: Restorer,
    record: dict[str, Any],
    findings: Findings | None,
    notes: list[str],
) -> Run:
    """Write weights, run.json and model card."""
    complete = DENOISER in record or "model.denoiser.network" in record
    tensors = restorer.state_dict()
    if not complete:
        tensors = {
            name: tensor for name, tensor in tensors.items() if name.startswith(f"{CLASSIFIER}.")
        }
        notes = [
            *notes,
            "a classifier alone restores nothing: import its diffusion model into the same run",
        ]
    elif getattr(restorer, "scale", None) == 0 and CLASSIFIER not in record:
        notes = [
            *notes,
            "restores without guidance until its classifier is imported into the same run",
        ]
    state = {"step": 0, "recipe": run.recipe.name, "recipe_sha256": run.recipe_sha256}
    sha256 = checkpoint.save(run.folder / (BEST if complete else WAITING), tensors, state)
    if complete:
        (run.folder / WAITING).unlink(missing_ok=True)
    parameters = sum(
        tensor.numel() for part in record for tensor in restorer.get_submodule(part).parameters()
    )
    run.note(
        status="imported",
        imported=record,
        parameters=parameters,
        weights=BEST if complete else WAITING,
        notes=notes,
        weights_sha256=sha256,
        network_calls=restorer.network_calls(),
        check=findings and findings.as_dict(),
        finished=now(),
    )
    write_text(run.folder / "MODEL_CARD.md", card(run, findings, notes))
    say(
        f"{run.recipe.name}: {parameters:,} parameters"
        + (f"; {findings.text()}" if findings else "")
    )
    for note in notes:
        say(f"note: {note}")
    return run


def card(run: Run, findings: Findings | None, notes: Iterable[str]) -> str:
    """The text of MODEL_CARD.md of weights that were trained elsewhere."""
    files = [
        f"- Weights of `{part}`: {entry['file']}, sha256 {entry['sha256']}"
        for part, entry in run.record["imported"].items()
    ]
    lines = [
        f"# {run.recipe.name}",
        "",
        "**Research use only. Not a medical device; not for diagnosis.**",
        "",
        (
            f"- Source: {run.recipe.source}; trained elsewhere, on what and how well is for its"
            " authors to say"
        ),
        f"- Method: `{run.recipe.restorer['name']}`, {run.record['parameters']:,} parameters",
        *files,
        f"- Self-check: {findings.text() if findings else 'none'}",
        "- Threshold: none; give `detect --threshold VALUE` or `otsu`",
        *(f"- Note: {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"
