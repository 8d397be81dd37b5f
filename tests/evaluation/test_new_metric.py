"""A metric that this module registers, and nothing else names, is in every table; its better end is
the lower one."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import collecting
import numpy as np
import pytest
import result_tables
from rich.console import Console

from pseudohealthy.errors import Fault
from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.metric_frame import Frame, Setting
from pseudohealthy.evaluation.protocols import strict
from pseudohealthy.evaluation.records import CaseResult, Record, summarise
from pseudohealthy.metrics.table import METRICS, Metric, register
from pseudohealthy.report import comparison_tables, evaluation_tables, plots, sweep_tables
from pseudohealthy.workflows.compare import compare
from pseudohealthy.workflows.evaluate import evaluate
from pseudohealthy.workflows.sweep import sweep
from pseudohealthy.workflows.train import train

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples", "unrest")
NAME, WORDS = "unrest_mean", "unrest outside (lower is better)"


@pytest.fixture(scope="module")
def unrest():
    """The whole of what a new metric takes."""

    @register(
        Metric(NAME, "unrest outside", "case", "unrest", better="lower", shown=("table", "forest"))
    )
    def measure(frame: Frame, cases: list[CaseResult]) -> None:
        values = np.asarray([float(case.map[~case.truth].mean()) for case in cases])
        frame.mean(NAME, cases, values, prevalence=None)

    yield METRICS[NAME]
    METRICS.remove(NAME)


@pytest.fixture(scope="module")
def labelled(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures with the test cases as validation cases as well."""
    root = tmp_path_factory.mktemp("labelled") / "blobs"
    shutil.copytree(pictures, root)
    shutil.rmtree(root / "val")
    shutil.copytree(root / "test", root / "val")
    return root


@pytest.fixture(scope="module")
def evaluated(unrest, tiny_run, pictures, tmp_path_factory) -> tuple[Evaluation, Path]:
    out = tmp_path_factory.mktemp("evaluate") / "out"
    return evaluate(tiny_run, pictures, out, device="cpu"), out


@pytest.fixture(scope="module")
def compared(unrest, tiny_run, tiny, pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    other = tiny("map.smooth=1.5", "training.steps=4", "training.validate=4")
    runs = [tiny_run, train(other, pictures, folder / "smooth", device="cpu").folder]
    return compare(runs, pictures, folder / "out", device="cpu", resamples=20), folder / "out"


def plain(records: list[Record]) -> dict[str, float]:
    return {r.method: r.value for r in records if r.metric == NAME}


def test_evaluate_marks_the_smallest_and_takes_the_difference_to_the_quietest_control(evaluated):
    result, out = evaluated
    values = plain(result.records)
    controls = {method: value for method, value in values.items() if method.startswith("control:")}
    quietest = min(controls, key=controls.__getitem__)
    assert quietest == "control: identity" and len(set(controls.values())) > 1
    stored = {(e["method"], e["metric"]): e for e in json.loads((out / "metrics.json").read_text())}
    difference = stored["ddpm", f"{NAME}_difference"]
    assert (
        difference["against"] == quietest
        and difference["p_holm"] is not None
        and difference["ci95"] is not None
    )
    assert difference["value"] == pytest.approx(values["ddpm"] - values[quietest])
    assert stored["ddpm", NAME]["unit"] == "case", "the unit of the table"
    assert {method for method, heading in summarise(result.records).best if heading == WORDS} == {
        quietest
    }


def test_the_terminal_and_the_report_show_it(evaluated):
    result, out = evaluated
    console = Console(width=120, file=io.StringIO())
    console.print(evaluation_tables.table(result))
    printed = console.file.getvalue()
    part = printed[printed.index("unrest") :]
    assert "lower is" in part and "ddpm minus best" in part
    smallest = next(line for line in part.splitlines() if "control: identity" in line)
    assert "0.000*" in smallest and part.count("*") == 2, "the mark, and its explanation"
    html = (out / "report.html").read_text("utf-8")
    assert WORDS in html


def test_csv_latex_page_and_report_of_a_comparison_have_it_best_at_the_lower_end(compared):
    result, out = compared
    (evaluation,) = result.evaluations.values()
    values = plain(evaluation.records)
    table = {row["method"]: row for row in csv.DictReader((out / "comparison.csv").open())}
    assert {method: float(row[NAME]) for method, row in table.items()} == pytest.approx(values)
    runs = sorted((m for m in values if not m.startswith("control:")), key=values.__getitem__)
    quieter, louder = runs
    assert (
        table[louder][f"{NAME}_best_run"] == quieter
        and float(table[louder][f"{NAME}_minus_best_run"]) > 0
    )
    assert table[quieter][f"{NAME}_control"].startswith("control: identity")
    tex = (out / "comparison.tex").read_text().splitlines()
    at = next(line for line in tex if line.startswith("method &")).split(" & ").index(WORDS)
    bold = [
        line.split(" & ")[0]
        for line in tex
        if line.count(" & ") > at and r"\textbf" in line.split(" & ")[at]
    ]
    assert bold and all(name.startswith("control: identity") for name in bold)
    assert WORDS in (out / "comparison.md").read_text() and WORDS in (
        out / "report.html"
    ).read_text("utf-8")
    assert any(
        f"{louder} minus {quieter}, {WORDS}" in note for note in comparison_tables.notes(result)
    )


def test_the_forest_plot_draws_its_line_at_the_smallest_control(compared, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    lines: list[float] = []
    real = Axes.axvline
    monkeypatch.setattr(
        Axes, "axvline", lambda self, x, **more: lines.append(float(x)) or real(self, x, **more)
    )
    ((data, evaluation),) = compared[0].evaluations.items()
    own = [r for r in evaluation.records if r.metric == NAME]
    plots.forest(tmp_path / "forest.png", {data: own})
    assert lines == [
        min(value for method, value in plain(own).items() if method.startswith("control:"))
    ]


def test_a_sweep_shows_it_and_chooses_the_smallest(unrest, tiny_run, labelled, tmp_path):
    result = sweep(
        tiny_run,
        labelled,
        ["map.smooth=0,3"],
        tmp_path / "out",
        device="cpu",
        resamples=20,
        metric=NAME,
    )
    values = {place: result.value(place, NAME).value for place in result.records}
    assert len(set(values.values())) == 2 and values[result.best] == min(values.values())
    (best,) = (
        row
        for row in csv.DictReader((tmp_path / "out" / "sweep.csv").open())
        if row["best"] == "True"
    )
    assert float(best[NAME]) == min(values.values())
    assert NAME in sweep_tables.text(result) and NAME in (
        tmp_path / "out" / "report.html"
    ).read_text("utf-8")
    with pytest.raises(Fault, match=f"'unrest' was not measured here.*{NAME}") as caught:
        sweep(tiny_run, labelled, ["map.smooth=0"], device="cpu", resamples=20, metric="unrest")
    assert "\n" not in str(caught.value) and caught.value.exit == 2


def test_a_table_of_the_results_page_is_bold_at_the_lower_end(compared, tiny_run):
    _, out = compared
    found = collecting.collect(out, "new", None, "", "")
    table = result_tables.table(json.loads(json.dumps(found)), [NAME, "less", NAME])
    bold = [line for line in table.splitlines() if "**" in line]
    assert bold and all("control: identity" in line for line in bold)
    assert WORDS in table


def test_a_count_in_tables_gets_a_difference_without_an_interval(monkeypatch):
    """Of two controls the one that counts less is the rival."""
    counted = Metric(
        "marked",
        "",
        "case",
        "image",
        better="lower",
        resampled=False,
        shown=("table",),
        measure=lambda frame, cases: frame.put(
            "marked", sum(c.score > 1 for c in cases), None, cases, None
        ),
    )
    monkeypatch.setitem(METRICS.added, "marked", counted)
    monkeypatch.delitem(METRICS.added, NAME)
    scores = {"mine": 0, "control: loud": 9, "control: quiet": 3}
    cases = [
        CaseResult(f"c{i}", f"p{i}", i % 2, 2.0 if i < count else 0.0, method=method)
        for method, count in scores.items()
        for i in range(10)
    ]
    (difference,) = (
        r for r in strict(cases, Setting(resamples=20)).records if r.metric == "marked_difference"
    )
    assert (difference.value, difference.against) == (-3, "control: quiet")
    assert difference.ci95 is None and difference.p_value is None and difference.p_holm is None


def test_a_name_is_taken_once_and_an_unknown_one_is_a_mistake(unrest):
    with pytest.raises(ValueError, match=f"'{NAME}' already"):
        register(unrest)(lambda frame, cases: None)
    frame = Frame("mine", Evaluation(), Setting())
    with pytest.raises(ValueError, match="no metric 'unheard_of'"):
        frame.put("unheard_of", 1.0, None, [], None)
    with pytest.raises(ValueError, match="has no resamples"):
        frame.put(NAME, 1.0, None, [], None)
