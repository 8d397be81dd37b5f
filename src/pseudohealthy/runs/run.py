"""A run: the folder that holds one trained method and everything said about it."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pseudohealthy import models
from pseudohealthy.errors import BAD_MODEL, REFUSED, USAGE, Fault
from pseudohealthy.io.atomic import write_json, write_text
from pseudohealthy.io.output_folder import prepare_folder
from pseudohealthy.progress import say
from pseudohealthy.registry import plugins
from pseudohealthy.restorers import REGISTRY
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.version import __version__

# What training leaves in a run folder
WRITTEN = (
    "resume.safetensors",
    "resume-previous.safetensors",
    "last.safetensors",
    "best_model.safetensors",
    "best_model_loss.safetensors",
    "run.json",
    "threshold.json",
    "fingerprint.json",
    "training_history.json",
    "split.csv",
    "MODEL_CARD.md",
    "training_curves.png",
    "diagnostics_epoch_*.png",
    "eval_scores_epoch_*.png",
    "classifier.safetensors",
)
WEIGHTS = ("best_model", "best_model_loss", "last")  # of a run, by the names of their files


@dataclass
class Run:
    """The folder of CONTRACT: recipe.toml, weights, split.csv, threshold.json, fingerprint.json,
    run.json, plots."""

    folder: Path
    recipe: Recipe
    record: dict[str, Any] = field(default_factory=dict)  # run.json
    which: str = (
        ""  # of its weights: one of WEIGHTS, or a file; "": best_model, of a run that has none last
    )

    @classmethod
    def create(
        cls, folder: Path | str, recipe: Recipe, *, overwrite: bool = False, **record: Any
    ) -> Run:
        """Start a run in an empty folder. Fault OUTPUT_NOT_EMPTY (exit 6) where something lies
        already."""
        folder = prepare_folder(folder, overwrite=overwrite)
        for stale in (path for pattern in WRITTEN for path in folder.glob(pattern)):
            # Above all the resume state: an overwritten run must not go on where the old one
            # stopped.
            stale.unlink()
        run = cls(folder, recipe.resolved())
        write_text(folder / "recipe.toml", run.recipe.toml())
        run.note(
            status="running",
            **provenance(),
            recipe=recipe.name,
            recipe_sha256=run.recipe_sha256,
            **record,
        )
        return run

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """An existing run, or a bundled model by its name. Fault RUN_MISSING (exit 5) when the
        folder is none."""
        folder = models.folder_of(folder)
        run = cls(folder, Recipe("unread"))
        if not (folder / "recipe.toml").is_file():
            raise Fault(
                "RUN_MISSING",
                f"'{folder.name}' is not a run (no recipe.toml)",
                "name a folder that `train` wrote, or a model that comes along:"
                f" {', '.join(models.names())}",
                exit=BAD_MODEL,
            )
        run.record = run.read_json("run.json")
        if not isinstance(run.record, dict):
            raise Fault(
                "RUN_CORRUPT",
                f"'{folder.name}' has no run.json",
                "restore it from a copy",
                exit=BAD_MODEL,
            )
        run.require_plugins()
        with of_run(folder):
            run.recipe = Recipe.load(folder / "recipe.toml")
            run.recipe.resolved()  # somebody may have edited it
        return run

    def require_plugins(self) -> None:
        """Fault PLUGIN (exit 8) for a method that nobody registered; nothing is imported for it."""
        try:
            content = tomllib.loads((self.folder / "recipe.toml").read_text(encoding="utf-8"))
            name, plugin = content["restorer"]["name"], content.get("plugin")
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return  # what is wrong is said when the recipe is read
        named = [one for one in self.record.get("plugins") or () if isinstance(one, dict)]
        words = [str(one.get("name"))[:80] for one in named]
        if plugin is not None:
            message = f"recipe.toml of '{self.folder.name}' names a plugin; a run loads none"
            raise Fault("PLUGIN", message, "take that line away, and use --plugin", exit=REFUSED)
        if not isinstance(name, str) or name not in REGISTRY:
            cure = "install or give (--plugin FILE.py) the plugin that registers it"
            cure += f": {', '.join(words)}" if words else ", if you trust it"
            message = f"run '{self.folder.name}' restores with '{str(name)[:80]}', unknown here"
            raise Fault("PLUGIN", message, cure, exit=REFUSED)
        origin = REGISTRY.origins.get(name)
        if origin and named and origin.sha256 not in [one.get("sha256") for one in named]:
            say(f"'{name}' comes from {origin.name}, which is not the file the run was made with")

    def own(self) -> Run:
        """This run, to be written into. Fault USAGE (exit 2) for a model that comes with the
        program."""
        if self.folder.parent == models.FOLDER:
            cure = (
                "use detect --set for other settings, or start a training from it with"
                " restorer.weights"
            )
            raise Fault(
                "USAGE",
                f"'{self.name}' comes with the program and stays as it is",
                cure,
                exit=USAGE,
            )
        return self

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def usual(self) -> bool:
        """Whether it restores with the weights that its threshold was set for."""
        return self.which in ("", "best_model")

    @property
    def going_on(self) -> str:
        """The line that goes on with it, by the path it was opened with; for the screen, since
        paths may name people."""
        return f"pseudohealthy train --resume {shlex.quote(str(self.folder))}"

    @property
    def recipe_sha256(self) -> str:
        return hashlib.sha256(self.recipe.toml().encode()).hexdigest()

    @property
    def changed(self) -> bool:
        """Whether recipe.toml is another than the one run.json records: edited by hand, or written
        by another version."""
        text = (
            self.folder / "recipe.toml"
        ).read_bytes()  # as it stands, where settings have other names by now
        return self.record.get("recipe_sha256", self.recipe_sha256) not in (
            self.recipe_sha256,
            hashlib.sha256(text).hexdigest(),
        )

    @property
    def seed(self) -> int:
        return int(self.recipe.training.get("seed", 0))

    def note(self, **entries: Any) -> None:
        """Add to run.json and write it."""
        self.record.update(entries)
        write_json(self.folder / "run.json", self.record)

    def read_json(self, name: str) -> Any:
        """A JSON file of the run, or None where it has not been written. Fault RUN_CORRUPT (exit
        5)."""
        path = self.folder / name
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        except (OSError, ValueError, RecursionError):
            raise Fault(
                "RUN_CORRUPT",
                f"{name} of '{self.name}' cannot be read",
                "restore it from a copy",
                exit=BAD_MODEL,
            ) from None

    def weights(self) -> Path:
        """The weights that restore: those of `which`; where nothing is asked for best_model, else
        the last ones.

        Fault CHECKPOINT_MISSING (exit 5).
        """
        names = (self.which,) if self.which in WEIGHTS else () if self.which else WEIGHTS[::2]
        paths = [self.folder / f"{name}.safetensors" for name in names] or [Path(self.which)]
        for path in paths:
            if path.is_file():
                return path
        found, cure = f"run '{self.name}' has no weights yet", "train it first"
        if self.which:
            found = (
                f"run '{self.name}' has no {paths[0].name}"
                if names
                else f"no file named {self.which}"
            )
            cure = f"give {', '.join(WEIGHTS)}, or a .safetensors file with weights of this recipe"
        raise Fault("CHECKPOINT_MISSING", found, cure, exit=BAD_MODEL)

    def restorer(self, weights: Path | None = None):
        """(restorer with its weights, sha256 of the weights); eval mode, no gradients."""
        restorer = self.recipe.make_restorer()
        tensors, _, sha256 = checkpoint.load(
            weights or self.weights(), expected=restorer.state_dict()
        )
        recorded = self.record.get("weights_sha256")
        own = weights is None and self.usual
        if own and self.record.get("status") == "finished" and recorded not in (None, sha256):
            raise Fault(
                "CHECKPOINT_CORRUPT",
                f"the weights of '{self.name}' are not those of its run.json (sha256)",
                "restore them from a copy",
                exit=BAD_MODEL,
            )
        restorer.load_state_dict(tensors)
        return restorer.eval().requires_grad_(False), sha256


@contextmanager
def of_run(folder: Path) -> Iterator[None]:
    """Within: a fault of the recipe is one of this run (exit 5)."""
    try:
        yield
    except Fault as fault:
        found = f"recipe.toml of '{folder.name}': {fault.message}"
        raise Fault(fault.code, found, fault.cure, exit=BAD_MODEL) from None


def provenance(hidden: Mapping[Path, str] | None = None) -> dict[str, Any]:
    """How a result was made: command, versions, machine kind, time; no paths of the machine, no
    user names. hidden: words that stand for paths whose names must not be told, such as those of
    inputs."""
    program = Path(sys.argv[0]).name.replace("__main__.py", "pseudohealthy")  # python -m
    words = [_shown(word, hidden or {}) for word in sys.argv[1:]]
    return {
        "command": " ".join([program, *words]),
        "pseudohealthy": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "started": now(),
        **plugins(),
    }


def _shown(word: str, hidden: Mapping[Path, str]) -> str:
    """A word of the command line, of a path its last part alone."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return (
        option + equals + (hidden.get(Path(value)) or (Path(value).name if "/" in value else value))
    )


def commit() -> str | None:
    """Git commit of the package's checkout, with '+' when files differ from it; None outside a
    checkout."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if dirty else "")


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
