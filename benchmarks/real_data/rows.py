"""Figures of docs/results.md: collected into docs/rows as JSON, and every table of the page made
from them.

    python benchmarks/real_data/rows.py collect FOLDER --name NAME [--run RUN] [--data DATA]
    [--command TEXT]
    python benchmarks/real_data/rows.py page [PAGE]

collect: FOLDER is what `compare` (comparison.json) or `evaluate` (metrics.json) wrote, under any
protocol. It writes docs/rows/NAME.json: the figures of every run, paired differences to the best
control, and the controls that are the best of all in some figure (every control where there is one
run). No image, no case, no patient but their number. --run: the run that was evaluated, for its
budget and weights (`evaluate` stores figures only). --data: which data set, where a comparison has
several. --command: how the figures were made, where the folder does not say.

page: in PAGE (docs/results.md) all between `<!-- rows: NAME METRIC... less METRIC... -->` and `<!--
end -->` is written anew from docs/rows/NAME.json. Metrics are columns; those after "less" are shown
as paired difference to the best control. Without
metrics: what the protocol is judged by. Prose is written by hand and stays; a test holds the page
to the rows.

    python benchmarks/real_data/rows.py study FILE --name NAME

study: FILE is what a script of benchmarks wrote with --out, a list of objects.
docs/rows/studies/NAME.json says which of them the page shows ("is"), under which name ("label") and
in which columns (heading: keys of the object, joined by "/"); its figures are filled in from FILE.
The page shows it between `<!-- study: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from collecting import collect, written
from result_tables import table
from studies import studied, study_table

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.io.atomic import write_text

DOCS = Path(__file__).resolve().parents[2] / "docs"
MARKED = re.compile(r"<!-- rows: ([\w-]+)([ \w]*) -->\n.*?<!-- end -->", re.DOTALL)
STUDY = re.compile(r"<!-- study: ([\w-]+) -->\n.*?<!-- end -->", re.DOTALL)


def page(text: str, folder: Path = DOCS / "rows") -> str:
    """The page with every marked table made anew. Fault ROWS (exit 2) for a name or metric that the
    rows do not have."""

    def anew(match: re.Match[str]) -> str:
        path = folder / f"{match[1]}.json"
        if not path.is_file():
            raise Fault(
                "ROWS",
                f"the page asks for '{match[1]}', and rows has no such table",
                "collect it",
                exit=USAGE,
            )
        shown = table(json.loads(path.read_text(encoding="utf-8")), match[2].split())
        return f"<!-- rows: {match[1]}{match[2]} -->\n\n{shown}\n\n<!-- end -->"

    def again(match: re.Match[str]) -> str:
        path = folder / "studies" / f"{match[1]}.json"
        if not path.is_file():
            raise Fault(
                "ROWS",
                f"the page asks for the study '{match[1]}'",
                f"write {path.name} first",
                exit=USAGE,
            )
        return (
            f"<!-- study: {match[1]}"
            f" -->\n\n{study_table(json.loads(path.read_text(encoding='utf-8')))}\n\n<!-- end -->"
        )

    return STUDY.sub(again, MARKED.sub(anew, text))


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    actions = parser.add_subparsers(dest="action", required=True)
    collecting = actions.add_parser("collect")
    collecting.add_argument("folder", type=Path)
    collecting.add_argument("--name", required=True)
    collecting.add_argument("--run", type=Path)
    collecting.add_argument("--data", default="")
    collecting.add_argument("--command", default="")
    collecting.add_argument("--rows", type=Path, default=DOCS / "rows")
    studying = actions.add_parser("study")
    studying.add_argument("file", type=Path)
    studying.add_argument("--name", required=True)
    studying.add_argument("--rows", type=Path, default=DOCS / "rows")
    actions.add_parser("page").add_argument(
        "page", type=Path, nargs="?", default=DOCS / "results.md"
    )
    asked = parser.parse_args(words)
    try:
        if asked.action == "collect":
            found = collect(asked.folder, asked.name, asked.run, asked.data, asked.command)
            print(write_text(asked.rows / f"{asked.name}.json", written(found)))
        elif asked.action == "study":
            path = asked.rows / "studies" / f"{asked.name}.json"
            frame = studied(
                json.loads(path.read_text(encoding="utf-8")),
                json.loads(asked.file.read_text(encoding="utf-8")),
            )
            print(write_text(path, written(frame)))
        else:
            text = asked.page.read_text(encoding="utf-8")
            write_text(asked.page, page(text, asked.page.parent / "rows"))
            print(f"{len(MARKED.findall(text)) + len(STUDY.findall(text))} tables")
    except Fault as fault:
        raise SystemExit(str(fault)) from None


if __name__ == "__main__":
    main()
