"""Which command do the arguments name? Nothing heavy is imported here: `pseudohealthy --help` must answer at once."""

from __future__ import annotations

import contextlib
import io
import re

import tyro

from pseudohealthy import __version__
from pseudohealthy.commands.base import Command
from pseudohealthy.commands.finding import Demo, Detect, Inspect
from pseudohealthy.commands.keeping import Cache
from pseudohealthy.commands.measuring import Compare, Evaluate, Sweep
from pseudohealthy.commands.serving import Serve
from pseudohealthy.commands.training import ImportWeights, Prepare, Recipes, Train
from pseudohealthy.commands.verifying import Verify
from pseudohealthy.errors import USAGE, Fault

COMMANDS: dict[str, type[Command]] = {
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
    "cache": Cache,
}


def parse(arguments: list[str]) -> Command:
    """The command that the arguments name, filled in. Fault USAGE (exit 2) for wrong usage."""
    if arguments[:1] == ["--version"]:
        print(f"pseudohealthy {__version__}")
        raise SystemExit(0)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.extras.subcommand_cli_from_dict(
                dict(COMMANDS),
                prog="pseudohealthy",
                description="Find disease in medical images by restoring each scan to its healthy twin. Research use only.",
                args=arguments or ["--help"],
                sort_subcommands=False,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        # The parser draws a frame over several lines; a wrong flag gets one line like everything else.
        text = " ".join(re.sub(r"[│╭╮╰╯─]+", " ", said.getvalue()).split())
        raise Fault(
            "USAGE", text[:300].rstrip(" ."), "pseudohealthy COMMAND --help says what it takes", exit=USAGE
        ) from None
