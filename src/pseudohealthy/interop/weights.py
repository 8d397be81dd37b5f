"""Published checkpoints to runs: the command ``import-weights``.

Pickle is read here, with torch's restricted loader and no way around it. Configurations come from
the shapes; what shapes do not tell is known from the published code, probed (`interop.probe`) or
set. Anything that is not wholly understood is refused.
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
    """A run from a published checkpoint: ``.pt`` or ``.ckpt`` (weights only), or ``.safetensors``.

    system: wolleb, wolleb-classifier, anoddpm, thor, pddpm or cddpm; or diffusers, whose `file` is
        the folder of a model or a pipeline, or its id on the Hugging Face hub (fetched, where
        huggingface_hub is installed). settings: ``section.key=value`` texts for what a file does
        not say (canvas.normalise, restorer.network.attention.heads). Wolleb's two files go into one
        run, in any order; until then the run restores without guidance, or, with the classifier
        alone, not at all.
    Fault CHECKPOINT_* (exit 5) for a file that is damaged, unsafe, of another system or not finite.
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
    found, notes = (None, []) if alone else examine(system, restorer, recipe)
    run = Run.create(out, recipe.set(settings), overwrite=overwrite)
    return save(run, restorer, record, found, [*imported.notes, *notes])


def understood(system: str, state: State, file: Path) -> Imported:
    """Settings and parts of a state dict; Fault CHECKPOINT_MISMATCH where it is not of this
    system."""
    found, reader = recognised(state), SYSTEMS[system].read
    if found != system or reader is None:
        shown = ", ".join(
            f"{name} {tuple(tensor.shape)}" for name, tensor in list(state.items())[:3]
        )
        raise Fault(
            "CHECKPOINT_MISMATCH",
            f"{file.name} is of {found or 'no system known here'}, not of {system}: {shown}",
            f"import it as {found}" if found else f"systems: {', '.join(SYSTEMS)}",
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
    """Load one part, after its names and shapes were compared."""
    module = restorer.get_submodule(path)
    if isinstance(module, Perceptual):
        module.load_weights(dict(tensors))
        return
    checkpoint.compare(
        file, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, module.state_dict()
    )
    module.load_state_dict(tensors)


def waiting(out: Path, other: str, mine: str) -> tuple[Run, State, dict[str, Any]] | None:
    """The run in `out`, if it holds the `other` of Wolleb's two networks and not yet `mine`."""
    if not (out / "recipe.toml").is_file():
        return None
    run = Run.open(out)
    known = run.record.get("imported", {})
    if other not in known or mine in known:
        return None
    tensors, _, _ = checkpoint.load(out / (WAITING if other == CLASSIFIER else BEST))
    prefix = f"{other}."
    return (
        run,
        {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)},
        known,
    )


def joined(
    before: tuple[Run, State, dict[str, Any]],
    imported: Imported,
    record: dict[str, Any],
    file: Path,
) -> Recipe:
    """The recipe of both networks; `imported` and `record` get what was there before."""
    run, tensors, known = before
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
    recipe.canvas |= {} if CLASSIFIER in known else imported.canvas
    guidance = (
        recipe.restorer.get("guidance", {})
        | imported.restorer.get("guidance", {})
        | {"scale": 100.0}
    )
    recipe.restorer |= imported.restorer | {"guidance": guidance}
    imported.parts[next(iter(known))] = tensors
    record |= known
    return recipe


def examine(system: str, restorer: Restorer, recipe: Recipe) -> tuple[Findings, list[str]]:
    """What the weights were trained for, and what the user should know; the recipe follows where
    that is clear."""
    restorer.eval()
    denoiser = restorer.get_submodule("model.denoiser" if system == "cddpm" else "denoiser")
    assert isinstance(denoiser, Denoiser)
    given: dict[str, Any] = {"label": HEALTHY} if getattr(restorer, "conditional", False) else {}
    if isinstance(restorer, Conditioned):
        with torch.no_grad():
            given = {
                "vector": restorer.model.context(head(restorer.channels, restorer.size) * 2 - 1)
            }
    found, notes = probe(denoiser, restorer.channels, restorer.size, **given), []
    if found.answer == "2 noise - 1":
        noise = Draw(0, [0]).noise(head(restorer.channels, restorer.size))
        if system == "thor" and thor.repair(denoiser.network, noise):  # type: ignore[arg-type]
            notes.append(
                "the weights answered 2 noise - 1, a slip of the published trainer: rescaled to"
                " answer the noise"
            )
            found = probe(denoiser, restorer.channels, restorer.size, **given)
        else:
            notes.append(
                "the weights answer 2 noise - 1, not the noise: restorations will be far too bright"
            )
    known = ranges(type(restorer), "restorer")
    if "restorer.guidance.data_range" in known and found.data_range != "undecided":
        recipe.restorer["guidance"]["data_range"] = found.data_range
    elif found.data_range == "unit":
        notes.append(
            "the weights were trained on images in [0, 1], this method gives [-1, 1]: expect biased"
            " restorations"
        )
    if "restorer.diffusion.noise" in known and found.noise != "undecided":
        recipe.restorer.setdefault("diffusion", {})["noise"] = found.noise
        if system == "thor" and found.noise == "simplex":
            the_papers = {
                "walk": {"start_levels": [250]},
                "harmonise": {"levels": [200, 150, 100, 50]},
            }
            recipe.restorer |= the_papers
    if system.startswith("wolleb"):
        notes.append(
            "label 0 is taken as healthy: weights of the released CheXpert loader have it the other"
            " way round"
        )
    return found, notes


def save(
    run: Run, restorer: Restorer, record: dict[str, Any], found: Findings | None, notes: list[str]
) -> Run:
    """Weights, run.json and model card."""
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
        check=found and found.as_dict(),
        finished=now(),
    )
    write_text(run.folder / "MODEL_CARD.md", card(run, found, notes))
    say(f"{run.recipe.name}: {parameters:,} parameters" + (f"; {found.text()}" if found else ""))
    for note in notes:
        say(f"note: {note}")
    return run


def card(run: Run, found: Findings | None, notes: Iterable[str]) -> str:
    """MODEL_CARD.md of weights that were trained elsewhere."""
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
        f"- Self-check: {found.text() if found else 'none'}",
        "- Threshold: none; give `detect --threshold VALUE` or `otsu`",
        *(f"- Note: {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"
