"""Shells complete commands, the flags of a command, and names: by running what `completion`
prints."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from pseudohealthy import datasets
from pseudohealthy.__main__ import main
from pseudohealthy.cli import COMMANDS
from pseudohealthy.commands.words import words_of
from pseudohealthy.runs import recipe

BASH = shutil.which("bash")
bash = pytest.mark.skipif(BASH is None, reason="bash is not installed")


@pytest.fixture
def script(capsys, tmp_path):
    def printed(shell: str):
        assert main(["completion", shell]) == 0
        path = tmp_path / f"completion.{shell}"
        path.write_text(capsys.readouterr().out)
        return path

    return printed


@pytest.fixture
def completed(script, tmp_path):
    """What bash offers for a line, whose last word is being typed."""
    path = script("bash")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "scan one.png").touch()

    def run(*words: str) -> list[str]:
        line = (
            f'source {path}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pseudohealthy 2>/dev/null;'
            ' printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            [str(BASH), "-c", line, "bash", "pseudohealthy", *words],
            capture_output=True,
            text=True,
            cwd=tmp_path / "here",
        )
        assert done.returncode == 0 and done.stderr == "", done.stderr
        return [word for word in done.stdout.split("\n") if word]

    return run


@bash
def test_bash_completes_commands(completed):
    assert set(completed("")) == {*COMMANDS, "--help", "--version"}
    assert completed("tra") == ["train"]


@bash
@pytest.mark.parametrize("name", COMMANDS)
def test_bash_completes_the_flags_of_a_command_and_no_others(completed, name):
    own = {spelling for word in words_of(COMMANDS[name]) for spelling in word.spellings}
    assert set(completed(name, "--")) == own | {"--help"}


@bash
def test_bash_completes_names_and_files(completed):
    assert set(completed("train", "")) == {*recipe.names(), "scan one.png"}
    assert completed("train", "qui") == ["quick"]
    assert set(completed("prepare", "")) == {*datasets.REGISTRY, "scan one.png"}
    assert completed("detect", "brain") == ["brain-t1"]
    assert completed("detect", "brain-t1", "sc") == ["scan one.png"]
    assert completed("detect", "brain-t1", "x", "--out", "") == ["scan one.png"]


@bash
@pytest.mark.parametrize(
    "words, offered",
    [
        (("detect", "--engine", ""), ["plain", "ray"]),
        (("detect", "--engine", "=", "r"), ["ray"]),
        (("detect", "--engine", "="), ["plain", "ray"]),
        (("detect", "--kinds", "json", "dicom-s"), ["dicom-seg", "dicom-sc"]),
        (("import-weights", "wol"), ["wolleb", "wolleb-classifier"]),
        (("completion", "f"), ["fish"]),
    ],
)
def test_bash_completes_values(completed, words, offered):
    assert completed(*words) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_its_shell_can_read(script, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n", str(script(shell))], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_the_same_words(script, shell):
    text = script(shell).read_text()
    for name, cls in COMMANDS.items():
        assert name in text
        for word in words_of(cls):
            assert all((f"-l {s[2:]} " if shell == "fish" else s) in text for s in word.spellings)
    assert all(name in text for name in (*recipe.names(), *datasets.REGISTRY))


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(script):
    line = f"source {script('fish')}; complete -C 'pseudohealthy train qui'"
    assert "quick" in subprocess.run(["fish", "-c", line], capture_output=True, text=True).stdout
