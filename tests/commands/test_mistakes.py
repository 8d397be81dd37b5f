"""What people mistype gets one line that says what was meant, whatever the terminal, with exit
2."""

from __future__ import annotations

import shlex

import pytest

from pseudohealthy.__main__ import main
from pseudohealthy.cli import COMMANDS, parse
from pseudohealthy.commands.words import words_of
from pseudohealthy.errors import Fault


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder to stand in: a run, data, a scan, an output of detect."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs/one", "data/test/good", "found"):
        (tmp_path / name).mkdir(parents=True)
    for name in (
        "runs/one/recipe.toml",
        "data/test/good/a.png",
        "scan.nii.gz",
        "found/findings.json",
    ):
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def refused(capsys, there):
    """The one line that a command line is refused with."""

    def run(line: str) -> str:
        assert main(shlex.split(line)) == 2, line
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1, captured.err
        assert captured.err.startswith("error[") and "; " in captured.err
        assert " ... " not in captured.err and not captured.err.rstrip().endswith(","), "not cut"
        return captured.err.strip()

    return run


@pytest.mark.parametrize(
    "line, words",
    [
        ("trian quick", ["'trian'", "did you mean train?"]),
        ("Detect x", ["did you mean detect?"]),
        ("import_weights x", ["did you mean import-weights?"]),
        ("frobnicate", [", ".join(list(COMMANDS)[:-1]), "completion"]),
        ("brain-t1 scan.nii.gz", ["is a run", "pseudohealthy detect brain-t1"]),
        ("--quiet detect x", ["--quiet stands before the command"]),
        ("--vresion", ["did you mean --version?"]),
    ],
)
def test_a_command_that_is_none(refused, line, words):
    said = refused(line)
    assert all(word in said for word in words), said


@pytest.mark.parametrize("columns", [None, "20", "400"])
@pytest.mark.parametrize(
    "line, words",
    [
        ("train quick --dta x", ["--dta", "did you mean --data?"]),
        ("detect r i --ovewrite", ["did you mean --overwrite?"]),
        ("detect r i --OUT o", ["did you mean --out?"]),
        ("detect r i -out o", ["-out", "did you mean --out?", "two hyphens"]),
        ("detect r i –out o", ["–out", "did you mean --out?", "two hyphens"]),
        ("detect r i —out=o", ["—out", "did you mean --out?"]),
        ("detect r i −−out o", ["did you mean --out?"]),
        ("detect r i -o o", ["-o", "--out or --overwrite"]),
        (
            "detect r i --data d",
            ["belongs to train, evaluate, compare, sweep and verify, not to detect"],
        ),
        ("detect r i --no-overwrite", ["--overwrite is off"]),
        ("detect r i --qqq", ["pseudohealthy detect --help"]),
    ],
)
def test_a_flag_that_is_none(refused, monkeypatch, columns, line, words):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    said = refused(line)
    assert all(word in said for word in words), said


def test_only_flags_of_the_command_itself_are_suggested(refused):
    assert "--dedupe" not in refused("detect r i --dedup")
    assert "--dedupe" in refused("train r --dedup")


@pytest.mark.parametrize(
    "line, needs, write",
    [
        ("train", "a RECIPE, --data and --out", "train RECIPE --data DIR --out RUN"),
        ("train quick", "--data and --out", "train quick --data DIR --out RUN"),
        ("train --out r", "a RECIPE and --data", "train RECIPE --data DIR --out r"),
        ("detect", "a RUN, an INPUT and --out", "detect RUN INPUT... --out DIR"),
        ("detect brain-t1", "an INPUT and --out", "detect brain-t1 INPUT... --out DIR"),
        ("evaluate brain-t1 --out o", "--data", "evaluate brain-t1 --data DIR --out o"),
        ("compare brain-t1 --out o", "--data", "compare brain-t1 --data DIR... --out o"),
        ("sweep brain-t1 --data d --out o", "--over", "--over KEY=V1,V2..."),
        ("prepare", "a DATASET, a SOURCE and --out", "prepare DATASET SOURCE --out DIR"),
        ("import-weights thor", "a FILE and --out", "import-weights thor FILE --out RUN"),
        ("serve", "a RUN", "serve RUN..."),
        ("verify", "a RUN|OUT", "verify RUN|OUT"),
        ("inspect", "a PATH", "inspect PATH"),
        ("completion", "a SHELL", "bash, zsh or fish"),
    ],
)
def test_every_word_that_is_missing_is_named(refused, line, needs, write):
    said = refused(line)
    assert f"{line.split()[0]} needs {needs}; " in said and write in said, said


@pytest.mark.parametrize(
    "line, write",
    [
        ("detect scan.nii.gz runs/one", "detect runs/one scan.nii.gz --out DIR"),
        ("detect scan.nii.gz runs/one/ --out o", "detect runs/one/ scan.nii.gz --out o"),
        ("detect scan.nii.gz brain-t1 --out o", "detect brain-t1 scan.nii.gz --out o"),
        ("evaluate data --data runs/one --out o", "evaluate runs/one --data data --out o"),
        ("compare data --data runs/one --out o", "compare runs/one --data data --out o"),
        ("sweep data --data brain-t1 --over map.smooth=0,1 --out o", "sweep brain-t1 --data data"),
        ("train data --data quick --out o", "train quick --data data --out o"),
        ("train data --data quick", "train quick --data data --out RUN"),
        ("import-weights w.pt thor --out o", "import-weights thor w.pt --out o"),
        ("prepare data mnist --out o", "prepare mnist data --out o"),
        ("verify runs/one --run found", "verify found --run runs/one"),
        ("detect runs/one nothing --out data", "detect runs/one data --out nothing"),
        ("evaluate runs/one --data new --out data", "evaluate runs/one --data data --out new"),
        ("detect runs/one out --out scan.nii.gz", "detect runs/one scan.nii.gz --out out"),
    ],
)
def test_words_in_each_others_place(refused, line, write):
    assert f"write: pseudohealthy {write}" in refused(line)


@pytest.mark.parametrize(
    "line, words",
    [
        ("detect quick scan.nii.gz --out o", ["'quick' is a recipe", "pseudohealthy train quick"]),
        ("train brain-t1 --data data --out o", ["'brain-t1' is a run", "pseudohealthy recipes"]),
        ("detect runs/one runs/one --out o", ["is a run, not an INPUT"]),
        ("recipes quick thor", ["'thor' is one word too many"]),
        ("train quick data x", ["did you mean --data?"]),
    ],
)
def test_words_of_another_kind(refused, line, words):
    said = refused(line)
    assert all(word in said for word in words), said


def test_an_output_folder_of_ours_is_not_taken_for_an_input(capsys, there):
    assert main(["detect", "brain-t1", "typo.png", "--out", "found"]) == 3
    assert "there is no typo.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    "line, words",
    [
        ("detect r i --out o --engine rya", ["--engine is 'rya'", "did you mean ray?"]),
        ("detect r i --out o --kinds json nfti", ["--kinds is 'nfti'", "did you mean nifti?"]),
        ("detect r i --out o --kinds json,nfti", ["--kinds is 'nfti'"]),
        ("completion tcsh", ["bash, zsh or fish"]),
        ("detect r i --out", ["--out has no value", "write --out DIR"]),
        ("detect r i --out --json", ["--out has no value"]),
        ("detect r i --out a --out b", ["--out is given twice, as 'a' and as 'b'"]),
        ("detect r i --calls 3 --levels 4", ["--calls is given twice"]),
        ("detect r i --out o --overwrite=yes", ["--overwrite takes no value"]),
        ("train q --set restorer.walk.draws 4", ["write --set restorer.walk.draws=4"]),
        ("train q --set map.smooth=1 restorer.walk.draws 4", ["write --set restorer.walk.draws=4"]),
        ("train q --set draws", ["--set SECTION.KEY=VALUE"]),
        ("prepare mnist . --out o --set healthy slice", ["write --set healthy=slice"]),
        ("sweep r --data d --out o --over map.smooth", ["--over map.smooth=VALUE"]),
        ("detect r i --out o --batch 0", ["--batch is '0'", "at least 1"]),
        ("detect r i --out o --calls many", ["--calls is 'many'", "whole number"]),
        ("train q --data d --out o --epochs nan", ["--epochs is 'nan'"]),
        ("train q --data d --out o --steps 1.5", ["--steps is '1.5'", "whole number"]),
        ("serve r --port 99999", ["from 0 to 65535"]),
        ("demo --minutes 0", ["above 0"]),
        ("detect r i --out o --device gpu", ["'gpu' is not a device", "auto, cpu or cuda"]),
    ],
)
def test_values_that_are_none(refused, line, words):
    said = refused(line)
    assert all(word in said for word in words), said


@pytest.mark.parametrize("name", COMMANDS)
def test_no_value_may_be_empty(refused, name):
    before: list[str] = []
    for word in words_of(COMMANDS[name]):
        if word.of is bool:
            continue
        here = [""] if word.arg.positional else [word.name, ""]
        said = refused(shlex.join([name, *before, *here]))
        assert f"{word.name} is empty" in said or (word.choices and "is ''" in said), said
        before += [word.choices[0] if word.choices else "x"] if word.arg.positional else []


@pytest.mark.parametrize(
    "line, field, value",
    [
        ("detect r a b --out=o", "inputs", ["a", "b"]),
        ("detect --kinds nifti json --out o r a b", "kinds", None),
        ("detect r --out o -- -odd.png", "inputs", ["-odd.png"]),
        ("detect r a --out o --threshold -1.5", "threshold", "-1.5"),
        ("detect r a --out o --assume_spacing 0.5", "assume_spacing", 0.5),
        ("detect r a --out o --levels 7", "calls", 7),
        (
            "train q --data d --out o --set a.b=1 --set c.d=2 e.f=3",
            "set",
            ["a.b=1", "c.d=2", "e.f=3"],
        ),
        ("compare r1 r2 --data d1 --data d2 --out o", "runs", ["r1", "r2"]),
        ("detect r a --out o --seed-free", None, None),
    ],
)
def test_what_is_meant_is_read(there, line, field, value):
    if field is None:
        with pytest.raises(Fault):
            parse(shlex.split(line))
        return
    found = getattr(parse(shlex.split(line)), field)
    if field == "kinds":  # names of kinds end where they end
        assert found == ("nifti", "json")
        return
    assert (list(map(str, found)) if isinstance(found, tuple) else found) == value


def test_several_data_sets_may_follow_one_flag(there):
    found = parse(["compare", "--data", "data", "found", "runs/one", "brain-t1", "--out", "o"])
    assert [str(p) for p in found.data] == ["data", "found"]
    assert [str(p) for p in found.runs] == ["runs/one", "brain-t1"]


@pytest.mark.parametrize(
    "line, words",
    [
        ("compare runs/one --data data --out c --limit 0", "--limit is '0'"),
        ("train quick --data data --out r --steps 2 --epochs 3", "steps and epochs together"),
        ("train quick --data data --out r --steps 2 --minutes 3", "steps and minutes together"),
    ],
)
def test_values_that_would_be_taken_for_something_else(refused, line, words):
    assert words in refused(line)
