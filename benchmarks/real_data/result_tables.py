"""A table of docs/results.md in Markdown, and what its figures share."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.metrics.table import METRICS, names, sorting

LESS = "_difference"


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
