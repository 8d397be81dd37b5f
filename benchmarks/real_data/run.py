"""Train the listed recipes on real images, compare them per data set, keep the tables: one command,
resumable.

    python benchmarks/real_data/run.py IMAGES OUT [--only NAME ...] [--minutes M] [--published]
    [--compare]

IMAGES holds the source folders that experiments.toml names. OUT gets data/NAME (prepared),
runs/NAME, compared/DATA (with comparison.md, .json, .csv, .png). A finished run is not trained
again; one that was stopped goes on. --minutes: no new training begins after so many; a comparison
is made of what is there. --published: the recipes in their published size (for a GPU). --train,
--compare: only that. --steps N: at most so many in each training.
"""

from __future__ import annotations

import argparse
import time
import tomllib
from pathlib import Path
from typing import Any

import pseudohealthy as ph
from pseudohealthy import datasets
from pseudohealthy.errors import Fault
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.runs.run import Run

HERE = Path(__file__).parent


def prepared(name: str, facts: dict[str, Any], images: Path, out: Path) -> Path:
    """The folder of one data set, prepared once."""
    folder = out / "data" / name
    if not (folder / "manifest.csv").is_file():
        options = datasets.options(facts["dataset"], facts.get("options", []))
        datasets.prepare(facts["dataset"], images / facts["source"], folder, **options)
    return folder


def measured_on(entry: dict[str, Any]) -> list[str]:
    """Data sets whose tables a run stands in."""
    return [entry["data"], *entry.get("also", [])]


def finished(folder: Path) -> bool:
    return (folder / "run.json").is_file() and Run.open(folder).record.get("status") == "finished"


def train(entry: dict[str, Any], data: Path, runs: Path, published: bool, most: int | None) -> None:
    """Train one run, or go on with it."""
    folder = runs / entry["name"]
    if (folder / "resume.safetensors").is_file():
        from pseudohealthy.workflows.train import resume

        resume(folder)
        return
    recipe = entry["recipe"].removesuffix("-small") if published else entry["recipe"]
    others = {path.name: path.resolve() for path in runs.glob("*")}
    settings = [text.format_map(others) if "{" in text else text for text in entry.get("set", [])]
    listed = Recipe.load(recipe).make_budget().steps
    steps = min(most, listed) if most and listed else most
    ph.train(recipe, data, folder, steps=steps, settings=settings, overwrite=True, dedupe=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--compare", action="store_true")
    arguments = parser.parse_args()
    listed = tomllib.loads((HERE / "experiments.toml").read_text(encoding="utf-8"))
    wanted = [
        entry for entry in listed["run"] if not arguments.only or entry["name"] in arguments.only
    ]
    begun, runs = time.monotonic(), arguments.out / "runs"
    for entry in wanted:
        late = time.monotonic() - begun > 60 * arguments.minutes
        if arguments.compare or late or finished(runs / entry["name"]):
            continue
        print(f"== {entry['name']}: {entry['recipe']} on {entry['data']}", flush=True)
        try:
            data = prepared(
                entry["data"], listed["data"][entry["data"]], arguments.images, arguments.out
            )
            train(entry, data, runs, arguments.published, arguments.steps)
        except Fault as fault:  # the others are trained all the same
            print(fault, flush=True)
    for name in dict.fromkeys(
        name for entry in wanted if not arguments.train for name in measured_on(entry)
    ):
        there = [
            runs / e["name"]
            for e in wanted
            if name in measured_on(e) and finished(runs / e["name"])
        ]
        if not there:
            continue
        prepared(name, listed["data"][name], arguments.images, arguments.out)
        protocol = listed["data"][name].get("protocol", "strict")
        target = arguments.out / "compared" / name
        ph.compare(there, arguments.out / "data" / name, target, protocol=protocol, overwrite=True)
        print((target / "comparison.md").read_text(encoding="utf-8"), flush=True)


if __name__ == "__main__":
    main()
