"""K: settings and data that a training refuses, or trains without."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from faults.checkpoints import changed_run
from faults.scoring import Done, Trial, fails, row
from faults.stage import Stage


@row("K10", "YAML config with !!python/object/apply:os.system", "exit 2, nothing is run")
def k10(stage: Stage) -> Iterator[Trial]:
    mark = stage.folder / "pwned"
    text = f"!!python/object/apply:os.system ['touch {mark}']\n"
    for name in ("r.yaml", "r.toml"):
        (stage.folder / name).write_text(text)
        out = stage.out()
        done = stage.run("train", stage.folder / name, "--data", stage.pictures, "--out", out)
        trial = fails(done, "RECIPE", exit=2, **{"no run": not out.exists()})
        trial.harms = {"code ran": mark.exists()}
        yield trial


OUT_OF_RANGE = (
    "restorer.walk.draws=0",
    "restorer.walk.start_levels=[5000]",
    "restorer.diffusion.levels=1",
    "restorer.network.block.groups=7",
    "canvas.margin=-4",
    "canvas.size=0",
    "map.quantile=1.5",
    "training.rate=nan",
)


@row(
    "K12",
    "settings out of range: with --set, in a recipe, in a sweep, in a stored run",
    "refused by name with the range before data are read, exit 2 (5 for a run), no folder",
)
def k12(stage: Stage) -> Iterator[Trial]:
    def named(done: Done, key: str, out: Path, exit: int = 2) -> Trial:
        said = {"named": key in done.err, "no folder": not out.parent.exists()}
        return fails(done, "RECIPE", exit=exit, **said)

    def edit(folder: Path) -> None:
        text = (folder / "recipe.toml").read_text()
        (folder / "recipe.toml").write_text(text.replace("draws = 1", "draws = 0"))

    for setting in OUT_OF_RANGE:
        out, key = stage.out() / "deep", setting.partition("=")[0]
        words = "train", stage.root / "tiny.toml", "--data", stage.folder / "absent", "--out", out
        yield named(stage.run(*words, "--set", setting), key, out)
    recipe, out = stage.folder / "r.toml", stage.out() / "deep"
    recipe.write_text((stage.root / "tiny.toml").read_text().replace("steps = 12", "steps = -1"))
    yield named(
        stage.run("train", recipe, "--data", stage.pictures, "--out", out), "training.steps", out
    )
    over = "--over", "restorer.walk.draws=1,0"
    yield named(
        stage.run("sweep", stage.tiny, "--data", stage.pictures, *over, "--out", out),
        "restorer.walk.draws",
        out,
    )
    yield named(
        stage.run("detect", changed_run(stage, "edited", edit), stage.pictures, "--out", out),
        "draws",
        out,
        5,
    )


@row(
    "K13",
    "a training refused because of its data, into a new folder and over a finished run",
    "no folder is left; the run is as it was",
)
def k13(stage: Stage) -> Iterator[Trial]:
    out, bad = stage.out() / "deep" / "run", stage.folder / "bad" / "train" / "good"
    bad.mkdir(parents=True)
    (bad / "a.png").write_bytes(b"no picture")
    words = "train", stage.root / "tiny.toml", "--data", bad.parents[1], "--device", "cpu", "--out"
    yield fails(
        stage.run(*words, out), "NO_INPUT", exit=3, **{"no folder": not out.parents[1].exists()}
    )
    run = changed_run(stage, "kept", lambda folder: None)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for extra, word, exit in (((), "OUTPUT_NOT_EMPTY", 6), (("--overwrite",), "NO_INPUT", 3)):
        trial = fails(stage.run(*words, run, *extra), word, exit=exit)
        trial.harms = {
            "the run changed": before != {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
        }
        yield trial


@row(
    "K14",
    "a training whose batch cannot fit into the machine's memory",
    "refused before the first step with what it needs, exit 7, no folder",
)
def k14(stage: Stage) -> Iterator[Trial]:
    out = stage.out() / "deep" / "run"
    words = (
        "train",
        stage.root / "tiny.toml",
        "--data",
        stage.pictures,
        "--device",
        "cpu",
        "--batch",
        60000,
        "--out",
    )
    yield fails(
        stage.run(*words, out),
        "OUT_OF_MEMORY",
        "--batch",
        exit=7,
        **{"no folder": not out.parent.exists()},
    )


@row(
    "K15",
    "one damaged picture among those to train on",
    "trained without it: exit 4, one line, split.csv and model card tell it",
)
def k15(stage: Stage) -> Iterator[Trial]:
    data, out = stage.folder / "data", stage.out()
    shutil.copytree(stage.pictures, data)
    broken = min((data / "train" / "good").glob("*.png"))
    broken.write_bytes(broken.read_bytes()[:60])
    words = (
        "train",
        stage.root / "tiny.toml",
        "--data",
        data,
        "--out",
        out,
        "--device",
        "cpu",
        "--steps",
        1,
    )
    done = stage.run(*words)
    split, card = out / "split.csv", out / "MODEL_CARD.md"
    rows = split.read_text().splitlines() if split.is_file() else []
    told = [
        line for line in rows if broken.stem in line.split(",")[0] and line.endswith("TRUNCATED")
    ]
    yield fails(
        done,
        "TRUNCATED",
        exit=4,
        **{
            "one line": done.err.count("error[") == 1,
            "told in split.csv": len(told) == 1,
            "told on the card": card.is_file() and "Left out: 1 of" in card.read_text(),
        },
    )
