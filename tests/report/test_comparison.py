"""The tables of a comparison and a sweep: nothing from outside becomes a command, and columns say
what they are."""

from __future__ import annotations

import csv

import pytest

from pseudohealthy.evaluation.compare import Comparison
from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.records import Record
from pseudohealthy.io.table import write_table
from pseudohealthy.report.comparison_tables import escaped, latex, rows, save
from pseudohealthy.report.sweep_tables import heading

HOSTILE = r"50% of $x_1$ & \input{secret} #1 ~^ <a>"


def record(
    method: str, value: float, metric: str = "dice_pooled", source: str | None = "healthy-quantile"
) -> Record:
    return Record(
        metric=metric,
        value=value,
        ci95=(value - 0.1, value + 0.1),
        unit="voxel",
        protocol="strict",
        threshold_source=source,
        mask="m",
        grid="native",
        postprocessing="none",
        n_patients=9,
        n_cases=9,
        prevalence=0.1,
        method=method,
    )


def comparison(name: str = "thor") -> Comparison:
    records = [record(name, 0.5), record("control: x", 0.4), record(name, 0.7, "image_auroc", None)]
    facts = {name: {"network_calls": 12, "parameters": 7, "postprocessing": "=1+1"}}
    costs = {("data", name): {"seconds_per_case": 0.25, "peak_mb": None}}
    return Comparison(evaluations={"data": Evaluation(records=records)}, facts=facts, costs=costs)


def test_latex_keeps_names_as_text_and_marks_the_best():
    table = latex(comparison(HOSTILE))
    _, mine, control = table.split(r"\midrule")
    assert escaped(HOSTILE) in mine and r"\textbf{0.500}" in mine
    assert "0.400" in control and r"\textbf{0.400}" not in control
    for one in "%&#_$":
        assert one not in escaped(HOSTILE).replace("\\" + one, "")
    assert (
        r"\input" not in table
        and table.count(r"\begin{tabular}") == table.count(r"\end{tabular}") == 1
    )
    columns = table.split(r"\toprule")[1].split(r"\midrule")[0].count(" & ") + 1
    assert all(
        line.count(" & ") + 1 == columns for line in table.splitlines() if line.endswith(r"\\")
    )


def test_rows_name_the_threshold_and_hold_the_costs():
    mine, control = rows(comparison())
    assert (
        mine["dice_pooled@healthy-quantile"] == 0.5
        and mine["dice_pooled@healthy-quantile_low"] == 0.4
    )
    assert (mine["network_calls"], mine["seconds_per_case"], mine["parameters"]) == (12, 0.25, 7)
    assert "image_auroc" not in control and control["network_calls"] is None


def test_a_table_is_harmless_in_a_spreadsheet(tmp_path):
    write_table(tmp_path / "t.csv", [{"a": "=1+1", "b": None}, {"a": -1.5, "c": True}])
    assert list(csv.reader((tmp_path / "t.csv").open())) == [
        ["a", "b", "c"],
        ["'=1+1", "", ""],
        ["-1.5", "", "True"],
    ]


def test_the_page_shows_hostile_names_as_text(tmp_path):
    save(comparison("<script>alert(1)</script>"), tmp_path, {})
    html = (tmp_path / "report.html").read_text("utf-8")
    assert (
        "<script>alert(1)" not in html
        and "&lt;script&gt;alert(1)" in html
        and "Methods: figures and costs" in html
    )
    assert not (tmp_path / "curves.png").exists(), "no run has a validation ROC-AUC"


@pytest.mark.parametrize(
    "name, words",
    [
        ("dice_pooled@healthy-quantile", "Dice, pooled @ healthy-quantile"),
        ("dice_oracle_pooled", "Dice, pooled @ oracle"),
        ("image_auroc", "image AUROC"),
        ("healthy_residual_mean", "healthy residual mean"),
    ],
)
def test_headings_say_where_a_threshold_is_from(name, words):
    assert heading(name) == words
