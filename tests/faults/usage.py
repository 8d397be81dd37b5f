"""U: command lines with a slip in them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from faults.material import png
from faults.scoring import Trial, fails, row
from faults.stage import Stage


def typed(stage: Stage, line: str, *words: str, code: str = "USAGE", exit: int = 2) -> Trial:
    """A command line that is refused in one line with these words; nothing is printed or
    written."""
    before = sorted(stage.folder.rglob("*"))
    done = stage.run(*shlex.split(line))
    facts = {
        "nothing written": sorted(stage.folder.rglob("*")) == before,
        "nothing printed": not done.out,
    }
    trial = fails(done, code, *words, exit=exit, **facts)
    trial.exact = {"one line": done.err.count("\n") == 1}
    return trial


@row("U1", "a mistyped command or flag, pasted dashes", "exit 2, what was meant")
def u1(stage: Stage) -> Iterator[Trial]:
    yield typed(stage, "trian quick", "did you mean train?")
    yield typed(stage, "train quick --dta x", "did you mean --data?")
    for flag in ("-out", "–out", "—out=x", "--OUT"):
        yield typed(stage, f"detect r i {flag} x", "did you mean --out?")
    yield typed(stage, "detect r i --data x", "belongs to train, evaluate")


@row("U2", "words that are missing", "exit 2, every one named")
def u2(stage: Stage) -> Iterator[Trial]:
    yield typed(stage, "train", "train needs a RECIPE, --data and --out")
    yield typed(stage, "train --out r", "train needs a RECIPE and --data")
    yield typed(stage, "detect brain-t1", "detect needs an INPUT and --out")
    yield typed(stage, "detect brain-t1 x --out", "--out has no value")


@row("U3", "words in each other's place", "exit 2, the line as it was meant")
def u3(stage: Stage) -> Iterator[Trial]:
    scan, run = png(stage.folder / "scan.png", 100), stage.tiny
    yield typed(stage, f"detect {scan} {run} --out {stage.out()}", f"detect {run} {scan}")
    yield typed(
        stage,
        f"evaluate {scan.parent} --data {run} --out o",
        f"evaluate {run} --data {scan.parent}",
    )
    yield typed(
        stage, f"train {scan.parent} --data quick --out o", f"train quick --data {scan.parent}"
    )
    yield typed(stage, f"import-weights {scan} thor --out o", f"import-weights thor {scan}")
    yield typed(stage, f"detect {run} nothing --out {scan}", f"detect {run} {scan} --out nothing")


@row("U4", "an empty value, as of a variable that is not set", "exit 2, named; no folder walked")
def u4(stage: Stage) -> Iterator[Trial]:
    yield typed(stage, f"detect {stage.tiny} '' --out o", "INPUT is empty")
    yield typed(stage, f"detect {stage.tiny} x --out ''", "--out is empty")
    yield typed(stage, "train quick --data '' --out o", "--data is empty")
    yield typed(stage, "verify ' '", "is empty")


@row("U5", "a value that is none, a flag given twice, a setting without =", "exit 2, named")
def u5(stage: Stage) -> Iterator[Trial]:
    yield typed(stage, "detect r i --out o --engine rya", "did you mean ray?")
    yield typed(stage, "detect r i --out a --out b", "given twice")
    yield typed(stage, "detect r i --out o --batch 0", "--batch is '0'")
    yield typed(
        stage,
        "train quick --set restorer.walk.draws 4",
        "--set restorer.walk.draws=4",
        code="RECIPE",
    )


@row("U6", "calls of a method that does not walk", "exit 2, what applies instead")
def u6(stage: Stage) -> Iterator[Trial]:
    scan = png(stage.folder / "scan.png", 100)
    for flag in ("--calls", "--levels"):
        line = f"detect brain-t1 {scan} --out {stage.out()} {flag} 5"
        yield typed(stage, line, "does not apply", "--set restorer.walk.draws=N")
    yield typed(
        stage,
        f"detect {stage.ct} {scan} --out {stage.out()} --calls 5",
        "does not apply",
        "leave it out",
    )
