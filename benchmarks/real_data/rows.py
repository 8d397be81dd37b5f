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
import textwrap
from pathlib import Path
from typing import Any

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.evaluation.records import CONTROL, Record, merit
from pseudohealthy.io.atomic import write_text
from pseudohealthy.metrics.table import METRICS, names, shown_in, sorting
from pseudohealthy.restorers.apply import NOISE_KEY

DOCS = Path(__file__).resolve().parents[2] / "docs"
COLUMNS = (
    "method",
    "metric",
    "threshold_source",
    "value",
    "low",
    "high",
    "patients",
    "n",
    "unit",
    "prevalence",
    "against",
)
SHARED = ("protocol", "mask", "grid")
MARKED = re.compile(r"<!-- rows: ([\w-]+)([ \w]*) -->\n.*?<!-- end -->", re.DOTALL)
STUDY = re.compile(r"<!-- study: ([\w-]+) -->\n.*?<!-- end -->", re.DOTALL)
LESS = "_difference"


def collect(folder: Path, name: str, run: Path | None, data: str, command: str) -> dict[str, Any]:
    """What docs/rows/NAME.json holds. Fault ROWS (exit 2) for a folder of neither kind, or several
    data sets."""
    if (folder / "comparison.json").is_file():
        stored = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
        there = list(dict.fromkeys(entry["data"] for entry in stored["records"]))
        data = data or (there[0] if len(there) == 1 else "")
        if data not in there:
            raise Fault(
                "ROWS",
                f"the comparison is of {', '.join(there)}",
                "choose one with --data",
                exit=USAGE,
            )
        costs = {cost["method"]: cost for cost in stored["costs"] if cost["data"] == data}
        facts = {
            method: known | costs.get(method, {}) for method, known in stored["methods"].items()
        }
        records = [Record.from_dict(entry) for entry in stored["records"] if entry["data"] == data]
        made = {
            key: stored["made"].get(key)
            for key in ("command", "commit", "torch", "system", "started")
        }
    elif (folder / "metrics.json").is_file():
        records = [
            Record.from_dict(e)
            for e in json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        ]
        method = next(record.method for record in records if not record.is_control)
        facts, made, data = of_run(run, method, data)
    else:
        raise Fault(
            "ROWS",
            f"'{folder.name}' has no comparison.json and no metrics.json",
            "give the --out of `compare` or `evaluate`",
            exit=USAGE,
        )
    made = made | scoring(records)
    records = [r for r in records if shown_in(r.metric, "table")]
    kept = methods_of(records)
    shared = {key: getattr(records[0], key) for key in SHARED}
    if any(getattr(r, key) != value for r in records for key, value in shared.items()):
        raise Fault(
            "ROWS",
            "figures of several protocols, masks or grids",
            "they belong into several tables",
            exit=USAGE,
        )
    rows = [row_of(record) for record in records if record.method in kept]
    return {
        "table": name,
        "made": made | {"command": command or made["command"]},
        "shared": {"data": data, "split": "test", **shared, "interval": "95 %, patients resampled"},
        "methods": {method: described(method, facts) for method in kept},
        "columns": COLUMNS,
        "rows": rows,
    }


def scoring(records: list[Record]) -> dict[str, Any]:
    """What the scores behind the figures rest on, and the commit that made them, where the figures
    say so."""
    facts = ((key, getattr(records[0], key)) for key in ("noise_key", "plane_set", "commit"))
    return {key: value for key, value in facts if value}


def edition(made: dict[str, Any]) -> str:
    """A sentence of a caption: figures of the first edition are not those that this version would
    give."""
    if not made.get("noise_key"):
        return "Edition 1: noise keyed by the image, scores over all planes."
    return (
        f"Noise keyed by {made['noise_key']}; scores over {made['plane_set']}."
        if made.get("plane_set")
        else ""
    )


def of_run(run: Path | None, method: str, data: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """(facts by method, how it was made, name of the data) of an evaluation."""
    if run is None:
        raise Fault(
            "ROWS",
            "metrics.json does not say which run was evaluated",
            "name its folder with --run",
            exit=USAGE,
        )
    from pseudohealthy.evaluation.compare import training_seconds

    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    history = run / "training_history.json"
    seconds = (
        training_seconds(json.loads(history.read_text(encoding="utf-8")))
        if history.is_file()
        else None
    )
    data = data or Path(record["data"]).name
    # run.json knows of its training only.
    made = {"command": f"pseudohealthy evaluate {run.name} --data {data}"}
    found = {
        "restorer": method,
        "run": run.name,
        "training_steps": record.get("step"),
        "training_seconds": seconds,
    }
    found |= {
        key: record.get(key) for key in ("recipe", "network_calls", "parameters", "weights_sha256")
    }
    return {method: found}, made, data


def methods_of(records: list[Record]) -> list[str]:
    """Runs, and the controls worth a row: all those of one run; of several runs' those that lead in
    some figure."""
    methods = list(dict.fromkeys(record.method for record in records))
    runs = [method for method in methods if not method.startswith(CONTROL)]
    if len(runs) == 1:
        return methods
    leading = {record.against for record in records if record.against}
    for metric in names("table"):
        controls = [record for record in records if record.metric == metric and record.is_control]
        leading |= {max(controls, key=merit).method} if controls else set()
    return runs + [method for method in methods if method in leading and method not in runs]


def row_of(record: Record) -> list[Any]:
    low, high = record.ci95 or (None, None)
    numbers = [
        None if v is None else round(float(v), 6)
        for v in (record.value, low, high, record.prevalence)
    ]
    return [
        record.method,
        record.metric,
        record.threshold_source,
        *numbers[:3],
        record.n_patients,
        record.n_cases,
        record.unit,
        numbers[3],
        record.against,
    ]


def described(method: str, facts: dict[str, Any]) -> dict[str, Any]:
    """What a table says of a method, beside its figures."""
    control = re.fullmatch(rf"{CONTROL} (.+?)(?: \((.+)\))?", method)
    if control:
        seen = f", as {label(control[2], facts)} sees it" if control[2] else ""
        return {"label": f"control: {control[1]}{seen}", "control": True}
    from pseudohealthy.restorers import restorer_class

    known = facts[method]
    labels = restorer_class(known["restorer"]).uses_labels
    keys = (
        "network_calls",
        "training_steps",
        "training_seconds",
        "parameters",
        "seconds_per_case",
        "weights_sha256",
        "postprocessing",
    )
    found = {"label": label(method, facts), "control": False, "run": known.get("run")}
    found["learns_from"] = "image labels" if labels else "healthy only"
    rounded = {
        key: round(known[key], 2) if isinstance(known.get(key), float) else known.get(key)
        for key in keys
    }
    return found | {key: value for key, value in rounded.items() if value is not None}


def label(method: str, facts: dict[str, Any]) -> str:
    """Restorer and recipe; the run's name, too, where that is not enough."""
    known = [(one["restorer"], one.get("recipe")) for one in facts.values()]
    restorer, recipe = mine = facts[method]["restorer"], facts[method].get("recipe")
    apart = f", run {facts[method].get('run', method)}" if known.count(mine) > 1 else ""
    return f"{restorer} (`{recipe}`{apart})"


def written(found: dict[str, Any]) -> str:
    """JSON with one row a line, so that a difference can be read."""
    head = json.dumps(
        {key: value for key, value in found.items() if key != "rows"}, indent=1, ensure_ascii=False
    )
    rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in found["rows"])
    return head.removesuffix("\n}") + ',\n "rows": [\n' + rows + "\n ]\n}\n"


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


def studied(frame: dict[str, Any], entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The frame of a study with the figures of `entries`. Fault ROWS (exit 2) for a row that is not
    among them."""
    frame["noise_key"] = NOISE_KEY
    known = {entry[frame["key"]]: entry for entry in entries}
    for row in frame["rows"]:
        if row["is"] not in known:
            raise Fault(
                "ROWS",
                f"no entry has {frame['key']} '{row['is']}'",
                'correct the row\'s "is"',
                exit=USAGE,
            )
        row["figures"] = []
        for path in frame["columns"].values():
            value: Any = known[row["is"]]
            for key in path.split("/"):
                value = value[key]
            numbers = value if isinstance(value, list) else [value]
            row["figures"].append([None if v is None else round(v, 6) for v in numbers])
    return frame


def study_table(frame: dict[str, Any]) -> str:
    """A study in Markdown: a label, then figures with their intervals; signed under headings that
    begin with "less"."""
    lines = [line_of(["", *frame["columns"]]), "|---" * (1 + len(frame["columns"])) + "|"]
    for row in frame["rows"]:
        cells = []
        for heading, (value, *ends) in zip(frame["columns"], row["figures"], strict=True):
            low, high = ends or (None, None)
            whole = isinstance(value, int)
            nothing = heading.startswith("less") and value == low == high == 0
            text = (
                str(value)
                if whole
                else figure(
                    {"value": value, "low": low, "high": high},
                    "+" if heading.startswith("less") else "",
                )
            )
            cells.append(
                "" if nothing else f"**{text}**" if row.get("bold") and not whole else text
            )
        lines.append(line_of([f"**{row['label']}**" if row.get("bold") else row["label"], *cells]))
    said = (
        f"Made by `{frame['command']}`; figures:"
        f" [rows/studies/{frame['study']}.json](rows/studies/{frame['study']}.json)."
    )
    said = f"{said} {edition(frame)}".strip()
    return (
        "\n".join(lines)
        + "\n\n"
        + "\n".join(textwrap.wrap(said, 150, break_long_words=False, break_on_hyphens=False))
    )


def table(found: dict[str, Any], words: list[str]) -> str:
    """One table in Markdown with what its figures share below it."""
    rows = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
    cells = {(row["method"], row["metric"]): row for row in rows}
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    cut = words.index("less") if "less" in words else len(words)
    chosen = [metric for metric in names("page") if metric in metrics]
    shown = words[:cut] or chosen + [
        metric for metric in names("filler") if metric in metrics and len(chosen) < 3
    ]
    head = next(metric for metric in (*sorting(), *shown) if metric in shown)
    less = words[cut + 1 :] or ([head] if cut == len(words) else [])
    if missing := [m for m in (*shown, *(f"{m}{LESS}" for m in less)) if m not in metrics]:
        raise Fault(
            "ROWS",
            f"{found['table']} has no {', '.join(missing)}",
            f"one of: {', '.join(metrics)}",
            exit=USAGE,
        )

    def value(method: str, metric: str) -> float:
        """The merit: of two the better has the higher one."""
        cell = cells.get((method, metric))
        return float("-inf") if cell is None else METRICS[metric].merit(cell["value"])

    facts = found["methods"]
    runs = sorted((m for m in facts if not facts[m]["control"]), key=lambda m: -value(m, head))
    controls = sorted((m for m in facts if facts[m]["control"]), key=lambda m: -value(m, head))
    best = {metric: max(value(method, metric) for method in facts) for metric in shown}
    if len(runs) > 1:  # of many controls the rivals of what is shown
        differences = {f"{metric}{LESS}" for metric in (*shown, *less)}
        rivals = {row["against"] for row in rows if row["metric"] in differences}
        controls = [method for method in controls if method in rivals]
    several = len(runs) > 1
    titles = [
        "",
        *(["learns from", "calls", "steps"] if several else []),
        *(heading(cells, metrics, m) for m in shown),
    ]
    titles += [f"{heading(cells, metrics, m)}, less best control" for m in less] if several else []
    lines = [line_of(titles), "|---" * len(titles) + "|"]
    for method in (*runs, *controls):
        known = facts[method]
        budget = [
            known.get("learns_from", ""),
            *(number(known.get(f)) for f in ("network_calls", "training_steps")),
        ]
        line = [known["label"], *(budget if several else [])]
        for metric in shown:
            text = figure(cells.get((method, metric)))
            line.append(f"**{text}**" if text and value(method, metric) == best[metric] else text)
        line += (
            [figure(cells.get((method, f"{metric}{LESS}")), "+") for metric in less]
            if several
            else []
        )
        lines.append(line_of(line))
    if not several:
        line = [figure(cells.get((runs[0], f"{metric}{LESS}")), "+") for metric in shown]
        lines.append(line_of(["difference to the best control, paired", *line]))
    return "\n".join(lines) + "\n\n" + caption(found, rows, shown, runs)


def line_of(cells: list[str]) -> str:
    return "| " + re.sub(r"\|  (?=\|)", "| ", " | ".join(cells)).strip() + " |"


def heading(cells: dict[tuple[str, str], dict[str, Any]], metrics: list[str], metric: str) -> str:
    """As in every table of the program, with the threshold's source."""
    source = next(row["threshold_source"] for (_, name), row in cells.items() if name == metric)
    known = METRICS[metric.removesuffix(LESS)]
    return known.heading.removesuffix(" @") + (f", at {source}" if source else "") + known.warning


def figure(row: dict[str, Any] | None, sign: str = "") -> str:
    """.814 [.67, .93]; three digits in an interval narrower than .05."""
    if row is None or row["value"] is None:
        return ""
    digits = "" if row["low"] is None else 3 if row["high"] - row["low"] < 0.05 else 2
    ends = (
        ""
        if row["low"] is None
        else f" [{bare(row['low'], f'.{digits}f')}, {bare(row['high'], f'.{digits}f')}]"
    )
    return bare(row["value"], f"{sign}.3f") + ends


def bare(value: float, form: str) -> str:
    """A number without the zero before its point."""
    return re.sub(r"^([+-]?)0\.", r"\1.", format(value, form))


def number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def caption(
    found: dict[str, Any], rows: list[dict[str, Any]], shown: list[str], runs: list[str]
) -> str:
    """What the figures of a table share, in one paragraph."""
    shared, made = found["shared"], found["made"]
    kept = [row for row in rows if row["metric"] in shown]
    most = max(kept, key=lambda row: row["n"])
    chances = {
        row["unit"]: bare(row["prevalence"], ".3f") for row in kept if row["prevalence"] is not None
    }
    text = (
        f"{shared['split'].capitalize()} split of `{shared['data']}`: {most['n']:,} cases of"
        f" {most['patients']:,} patients"
    )
    text += (
        f"; prevalence {', '.join(f'{value} ({unit}s)' for unit, value in chances.items())}"
        if chances
        else ""
    )
    text += (
        f". Protocol {shared['protocol']}; mask: {shared['mask']}; grid: {shared['grid']};"
        f" interval: {shared['interval']}."
    )
    if len(runs) == 1:
        known = found["methods"][runs[0]]
        words = {
            "training_steps": "steps",
            "training_seconds": "s of training",
            "parameters": "parameters",
            "network_calls": "network calls an image",
        }
        text += (
            " Budget: "
            + ", ".join(
                f"{number(known[key])} {word}" for key, word in words.items() if key in known
            )
            + "."
        )
    text += f" {edition(made)}"
    commit = f" at commit {made['commit'][:7]}" if made.get("commit") else ""
    link = f"[rows/{found['table']}.json](rows/{found['table']}.json)"
    text += (
        f" Made by `{made['command']}`{commit}; all figures, with the sha256 of the weights:"
        f" {link}."
    )
    return "\n".join(textwrap.wrap(text, 150, break_long_words=False, break_on_hyphens=False))


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
