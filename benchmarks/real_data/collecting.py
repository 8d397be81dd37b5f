"""What docs/rows/NAME.json holds: figures of a comparison or an evaluation, one row a line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.evaluation.records import CONTROL, Record, merit
from pseudohealthy.metrics.table import names, shown_in

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
