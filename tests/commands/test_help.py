"""Help fits 80 columns wherever it is read, has a sentence for every word, and equals the page of
the docs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import commands_page
from pseudohealthy import datasets
from pseudohealthy.__main__ import main
from pseudohealthy.cli import COMMANDS
from pseudohealthy.commands import helping, kinds
from pseudohealthy.commands.base import Command
from pseudohealthy.commands.words import words_of
from pseudohealthy.runs import recipe

ROOT = Path(__file__).resolve().parents[2]
EVERY = pytest.mark.parametrize("name", ["", *COMMANDS])


def printed(capsys, *words: str) -> str:
    assert main(list(filter(None, words))) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


@pytest.mark.parametrize("columns, most", [(None, 80), ("80", 80), ("200", 80), ("60", 60)])
@EVERY
def test_help_fits_the_terminal_and_80_columns(capsys, monkeypatch, name, columns, most):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    lines = printed(capsys, name, "--help").splitlines()
    assert [line for line in lines if len(line) > most] == []


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_help_fits_80_columns_on_a_wide_terminal():
    import pty

    main_end, other = pty.openpty()
    subprocess.run(["stty", "cols", "300"], stdin=other, check=False)
    line = [sys.executable, "-m", "pseudohealthy", "detect", "--help"]
    with subprocess.Popen(line, stdin=other, stdout=other, stderr=other) as child:
        os.close(other)
        text = b""
        while True:
            try:
                part = os.read(main_end, 4096)
            except OSError:  # its end
                break
            if not part:
                break
            text += part
        assert child.wait() == 0
    os.close(main_end)
    assert b"--out DIR" in text and max(map(len, text.decode().splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_word_has_a_sentence_and_every_command_the_common_flags(name):
    words = {word.name: word for word in words_of(COMMANDS[name])}
    assert [word for word in words.values() if not word.help] == []
    assert {"--device", "--quiet", "--debug", "--json"} <= set(words)
    assert helping.about(COMMANDS[name])


def test_names_of_data_sets_are_listed_and_it_is_said_how_recipes_are(capsys):
    shown = " ".join(printed(capsys, "prepare", "--help").split())
    assert all(f" {name}" in shown for name in datasets.REGISTRY)
    shown = " ".join(printed(capsys, "train", "--help").split())
    assert f"`pseudohealthy recipes` lists all {len(recipe.names())}" in shown


def test_commands_and_what_stands_alone_are_listed(capsys):
    shown = printed(capsys, "--help")
    for word in (*COMMANDS, "--version", "--help"):
        assert f"  {word} " in shown
    assert "pseudohealthy completion bash" in " ".join(shown.split())


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_without_arguments_the_help_is_printed_and_nothing_has_failed(capsys, words):
    assert printed(capsys, *words) == helping.program(COMMANDS) + "\n"


@pytest.mark.parametrize(
    "words",
    [("detect", "--help"), ("detect", "-h"), ("help", "detect"), ("detect", "--dta", "--help")],
)
def test_help_of_a_command_is_given_whatever_stands_beside_it(capsys, words):
    assert printed(capsys, *words) == helping.of("detect", COMMANDS["detect"]) + "\n"


def test_systems_are_listed_once():
    (word,) = (word for word in words_of(COMMANDS["import-weights"]) if word.field == "system")
    assert word.choices == kinds.SYSTEMS
    (word,) = (word for word in words_of(COMMANDS["completion"]) if word.field == "shell")
    assert word.choices == kinds.SHELLS


def test_the_page_of_the_docs_is_what_the_program_reads():
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page == commands_page.page(COMMANDS), "make commands"
    for cls in (Command, *COMMANDS.values()):
        for word in words_of(cls):
            for spelling in word.spellings:
                assert spelling in page
