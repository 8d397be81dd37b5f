"""Which command do the arguments name? Nothing heavy is imported here: help must come at once."""

from __future__ import annotations

from itertools import pairwise

from pseudohealthy.commands import helping, mistakes, reading
from pseudohealthy.commands.base import COMMANDS, Command
from pseudohealthy.commands.completing import Completion
from pseudohealthy.commands.finding import Demo, Detect, Inspect
from pseudohealthy.commands.informing import Info
from pseudohealthy.commands.keeping import Cache
from pseudohealthy.commands.measuring import Compare, Evaluate, Sweep
from pseudohealthy.commands.serving import Serve
from pseudohealthy.commands.training import ImportWeights, Prepare, Recipes, Train
from pseudohealthy.commands.verifying import Verify
from pseudohealthy.commands.words import flags_of
from pseudohealthy.registry import load_file
from pseudohealthy.version import __version__

COMMANDS |= {
    "demo": Demo,
    "inspect": Inspect,
    "prepare": Prepare,
    "recipes": Recipes,
    "train": Train,
    "detect": Detect,
    "evaluate": Evaluate,
    "compare": Compare,
    "sweep": Sweep,
    "import-weights": ImportWeights,
    "verify": Verify,
    "serve": Serve,
    "info": Info,
    "cache": Cache,
    "completion": Completion,
}
HELP = ("-h", "--help")


def parse(arguments: list[str]) -> Command:
    """The command that the arguments name, filled in. Fault USAGE (exit 2) for wrong usage.

    Asked for help or the version, prints it and raises SystemExit(0).
    """
    name, *rest = arguments or HELP[-1:]
    if name == "help" and (not rest or rest[0] in COMMANDS):  # as git, cargo and pip have it
        name, rest = (rest[0], ["--help"]) if rest else ("--help", [])
    if name == "--version":
        answer(f"pseudohealthy {__version__}")
    if name in HELP:
        answer(helping.program(COMMANDS))
    if name not in COMMANDS:
        raise mistakes.unknown_command(name, COMMANDS, flags_of(Command))
    before = rest[: rest.index("--")] if "--" in rest else rest
    load_plugins(before)
    if any(word in HELP for word in before):
        answer(helping.of(name, COMMANDS[name]))
    return reading.read(name, rest, COMMANDS)


def load_plugins(words: list[str]) -> None:
    """Run the files behind --plugin before anything is read: what they add may be a value of
    another flag."""
    behind = [word.partition("=")[2] for word in words if word.startswith("--plugin=")]
    after = [file for word, file in pairwise(words) if word == "--plugin" and file[:1] != "-"]
    for file in filter(None, behind + after):  # the reader refuses an empty one as elsewhere
        load_file(file)


def answer(text: str) -> None:
    """Print it, and end well."""
    print(text)
    raise SystemExit(0)
