"""What may be fetched: the training pictures of the served runs and the files of finished jobs,
each from a list that is made by looking, so that no request is ever turned into a path."""

from __future__ import annotations

import html
import json
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pseudohealthy.counts import many
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.models import folder_of
from pseudohealthy.runs.run import Run
from pseudohealthy.serve.access import NOTHING

PICTURES = ("training_curves.png", "eval_scores_epoch_*.png", "diagnostics_epoch_*.png")
TYPES = {".html": "text/html; charset=utf-8", ".png": "image/png"}
PLAIN = (".csv", ".json", ".txt")
# As the reports write it: our scripts and styles by hash, pictures inside or beside the page,
# nothing else
POLICY = re.compile(
    r"default-src 'none'; img-src [a-z': ]+; style-src 'sha256-[\w+/=]+'; script-src("
    r" 'sha256-[\w+/=]+')+; "
    r"base-uri 'none'; form-action 'none'"
)
# Up to the next point of the list, over lines that go on; the list of what a folder holds has one
# of that name, too
IMAGES = re.compile(r"^- Images: (?!those it was trained on)(.+(?:\n  .+)*)", re.M)
META = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')


def opened(folders: Sequence[Path]) -> dict[str, Run]:
    """Runs by a name that tells them apart. Faults as `Run.open` raises them; USAGE for a run named
    twice."""
    runs: dict[str, Run] = {}
    places = [folder_of(folder).resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise Fault("USAGE", "a run is named twice", "name each once", exit=USAGE)
    for place in places:
        run = Run.open(place)
        run.weights()  # a run that cannot detect is refused now, not when a scan is sent
        twins = [other for other in places if other.name == place.name]
        runs[place.name if len(twins) == 1 else f"{place.parent.name}/{place.name}"] = run
    if len(runs) < len(places):
        raise Fault("USAGE", "two runs have the same name", "rename one of the folders", exit=USAGE)
    return runs


def pictures(run: Run) -> dict[str, Path]:
    """Of its training, by name: curves, and the last of each other kind."""
    found: dict[str, Path] = {}
    for pattern in PICTURES:
        paths = [p for p in run.folder.glob(pattern) if p.is_file() and not p.is_symlink()]
        if paths:
            last = max(paths, key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])
            found[last.name] = last
    return found


def described(name: str, run: Run) -> dict[str, Any]:
    """The row of a run: what run.json, threshold.json and training_history.json say; None where
    they do not."""
    record, threshold = run.record, run.read_json("threshold.json") or {}
    history = run.read_json("training_history.json") or []
    scores = [
        (e["validation_auroc"], e["step"]) for e in history if e.get("validation_auroc") is not None
    ]
    best = max(scores, default=None)
    return {
        "name": name,
        "recipe": record.get("recipe") or run.recipe.name,
        "knows": knows(run, record),
        "method": run.recipe.restorer.get("name"),
        "status": record.get("status"),
        "data": Path(str(record["data"])).name if record.get("data") else None,
        "patients": threshold.get("n_patients"),
        "planes": record.get("planes"),
        "steps": record.get("step", record.get("steps")),
        "threshold": threshold.get("value"),
        "threshold_source": threshold.get("source"),
        "quantile": threshold.get("quantile"),
        "auroc": best[0] if best else None,
        "auroc_step": best[1] if best else None,
        "parameters": record.get("parameters"),
        "network_calls": record.get("network_calls"),
        "use": card_line(run) or "Research use only.",
        "pictures": list(pictures(run)),
    }


def card(run: Run) -> str:
    """MODEL_CARD.md; empty where there is none."""
    try:
        return (run.folder / "MODEL_CARD.md").read_text("utf-8")
    except (OSError, ValueError):
        return ""


def card_line(run: Run) -> str:
    """The line of MODEL_CARD.md that says what the model may be used for."""
    return next(
        (line.strip("* ") for line in card(run).splitlines() if "research use" in line.lower()), ""
    )


def knows(run: Run, record: dict[str, Any]) -> str:
    """Which images the model has seen: what its card says of them ("Images: ..."), else its data
    set. A recipe's summary would speak of any data that it can be trained on."""
    if found := IMAGES.search(card(run)):
        return " ".join(found[1].split())
    data = Path(str(record["data"])).name if record.get("data") else ""
    if not data:
        return "images like those it was trained on, which are not recorded"
    planes = (
        f", {many(record['planes'], 'healthy plane')}"
        if isinstance(record.get("planes"), int)
        else ""
    )
    return f"images like those of {data}{planes}"


def files(folder: Path) -> dict[str, Path]:
    """Every regular file under `folder` by its relative name; links are left out, and not
    followed."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            if path.is_file() and not path.is_symlink() and not name.startswith("."):
                found[path.relative_to(folder).as_posix()] = path
    return found


def headers(path: Path) -> dict[str, str]:
    """Content-Type and what else a file is sent with: pages with their own policy, pictures and
    text as such, the rest as a download."""
    suffix = path.suffix.lower()
    if suffix in PLAIN:
        return {"Content-Type": "text/plain; charset=utf-8"}
    kind = TYPES.get(suffix)
    if kind is None:
        return {"Content-Type": "application/octet-stream", "Content-Disposition": "attachment"}
    return {
        "Content-Type": kind,
        **({"Content-Security-Policy": policy(path)} if suffix == ".html" else {}),
    }


def policy(page: Path) -> str:
    """The policy a report carries, for its header; of a page that carries another, one under which
    nothing runs."""
    with open(page, encoding="utf-8", errors="replace") as file:
        match = META.search(file.read(4096))
    own = html.unescape(match[1]) if match else ""
    return f"{own}; frame-ancestors 'none'" if POLICY.fullmatch(own) else f"{NOTHING}; sandbox"


def packed(folder: Path, path: Path, root: str) -> Path:
    """A zip of everything in `folder`, stored as it is: volumes are compressed already; inside, all
    lies in a folder `root`, so that it unpacks into one place."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, file in sorted(files(folder).items()):
            archive.write(file, f"{root}/{name}")
    return path


def log(path: Path) -> str:
    """What a worker said."""
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def listing(rows: Sequence[dict[str, Any]]) -> str:
    """The runs as JSON, for scripts."""
    return json.dumps(list(rows), indent=2)
