"""Protocols of boxes: what is predicted, hit and counted, pooled and class by class."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from measured import SETTING, value

from pseudohealthy.errors import Fault
from pseudohealthy.evaluation.protocols import CaseResult, measure
from pseudohealthy.evaluation.protocols.boxes import (
    FROC_RATES,
    froc,
    healthy_rate_threshold,
    iou,
    matched,
    predicted,
)
from pseudohealthy.evaluation.records import Box, Place
from pseudohealthy.metrics.thresholds import Threshold
from pseudohealthy.report import evaluation_tables, plots
from pseudohealthy.report.page import evaluation_report

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")


def picture(rng, number, boxes, method="ddpm"):
    values = (0.2 * rng.random((40, 40))).astype(np.float32)
    for box in boxes:
        values[int(box.y0) + 1 : int(box.y1), int(box.x0) : int(box.x1)] = 0.9
    if number % 3 == 0:
        values[30:33, 2:5] = 0.6  # imagined
    everywhere = np.ones((1, 40, 40), bool)
    return CaseResult(
        f"c{number}",
        f"p{number}",
        int(bool(boxes)),
        float(values.max()),
        map=values.ravel(),
        method=method,
        place=Place(everywhere, everywhere),
        boxes=tuple(boxes),
        truth=None if boxes else np.zeros(1600, bool),
    )


@pytest.fixture(scope="module")
def radiographs():
    rng = np.random.default_rng(1)
    found = [picture(rng, n, [Box(5, 6, 15, 18, "fracture")] if n % 2 else []) for n in range(12)]
    missed = picture(rng, 13, [])
    return [*found, replace(missed, label=1, boxes=(Box(20, 20, 30, 30, "fracture"),), truth=None)]


def test_boxes_are_predicted_and_counted(radiographs):
    result = measure("boxes", radiographs, replace(SETTING, thresholds=Threshold(0.3, "given")))
    assert value(result, "box_recall_iou10").value == pytest.approx(6 / 7)
    assert value(result, "box_precision_iou10").value == pytest.approx(6 / 10)  # four imagined
    assert value(result, "box_f1_iou50").value == pytest.approx(12 / 17)
    assert value(result, "false_boxes_per_image").value == pytest.approx(4 / 13)
    # True boxes score higher than every imagined one, so the FROC is flat at the recall.
    assert value(result, "box_froc_iou10").value == pytest.approx(6 / 7)
    assert value(result, "box_froc_iou10").ci95[0] < 6 / 7


def test_froc_equals_a_loop_over_thresholds():
    rng = np.random.default_rng(3)
    scores, hits, patient = rng.random(60).round(1), rng.random(60) < 0.4, rng.integers(0, 9, 60)
    annotated, images = np.bincount(patient, hits, 9) + 1, np.full(9, 2.0)
    weight = rng.integers(0, 3, (5, 9)).astype(float)
    for row, got in zip(
        weight, froc(scores, hits, patient, annotated, images, weight), strict=True
    ):
        drawn, reached = row[patient], []
        for rate in FROC_RATES:
            most = 0.0
            for threshold in np.unique(scores):
                chosen = scores >= threshold
                if (drawn * ~hits)[chosen].sum() <= rate * (row @ images):
                    most = max(most, (drawn * hits)[chosen].sum())
            reached.append(most / (row @ annotated))
        # Within a tie, misses pass first but hits may still follow a full quota.
        assert got >= np.mean(reached) - 1e-12
        assert got == pytest.approx(np.mean(reached), abs=0.1)


def test_overlap_of_boxes_and_one_hit_a_box():
    one, other = Box(0, 0, 10, 10), Box(5, 0, 15, 10)
    assert (
        iou(one, other) == pytest.approx(1 / 3)
        and iou(one, one) == 1
        and iou(one, Box(20, 20, 30, 30)) == 0
    )
    assert matched([(one, 0.9), (one, 0.8)], [one], 0.5).tolist() == [True, False]
    values = np.zeros((12, 12))
    values[2:4, 3:8], values[9, 9] = 0.5, 0.7
    assert predicted(values, 0.1) == [(Box(9, 9, 10, 10), 0.7), (Box(3, 2, 8, 4), 0.5)]
    assert Box.parse("1 2 3.5 4 foreign body; 5 6 7 8") == (
        Box(1, 2, 3.5, 4, "foreign body"),
        Box(5, 6, 7, 8),
    )
    for wrong in ("1 2 3", "3 2 1 4 x", "a b c d"):
        with pytest.raises(Fault, match="BOXES"):
            Box.parse(wrong)


def test_the_wrist_rule_takes_its_threshold_from_healthy_validation(radiographs):
    rng = np.random.default_rng(4)
    healthy = [picture(rng, 1, []) for _ in range(3)]
    result = measure("thor-wrist", radiographs, replace(SETTING, validation=healthy))
    record = value(result, "box_recall_covered")
    maps = [case.map for case in healthy]
    assert record.threshold == healthy_rate_threshold(maps).value
    assert (
        np.mean(maps) < record.threshold
        and np.mean(np.concatenate(maps) > record.threshold) <= 0.05
    )
    assert record.value == pytest.approx(6 / 7) and record.unit == "box"
    assert value(result, "box_f1_covered").value <= record.value
    walked = measure("thor-wrist:published", radiographs, SETTING)
    assert value(walked, "box_recall_covered").threshold in np.linspace(0, 1, 1000, endpoint=False)


@pytest.fixture(scope="module")
def by_class():
    """Three fractures found, a metal found and one missed, one class without a published name, two
    controls."""
    rng, found = np.random.default_rng(8), []
    kinds = [["fracture"], ["fracture", "metal"], ["fracture"], ["my class"], [], []]
    for method in ("ddpm", "control: intensity", "control: nothing"):
        for number, names in enumerate(kinds, 1):
            boxes = [Box(4 + 14 * k, 6, 12 + 14 * k, 18, name) for k, name in enumerate(names)]
            case = picture(
                rng, number, boxes if method != "control: nothing" else [], method=method
            )
            found.append(
                replace(
                    case,
                    boxes=tuple(boxes),
                    label=int(bool(boxes)),
                    truth=None if boxes else case.truth,
                )
            )
        lost = Box(20, 20, 30, 30, "metal")
        found.append(
            replace(picture(rng, 7, [], method=method), boxes=(lost,), label=1, truth=None)
        )
    return measure("thor-wrist", found, SETTING)


def test_recall_and_f1_of_each_class_stand_beside_the_pooled_ones(by_class):
    expected = {"fracture": (3, 1.0), "metal": (2, 0.5), "my class": (1, 1.0)}
    found = {
        kind: (
            value(by_class, f"n_boxes.{kind}").value,
            value(by_class, f"box_recall_covered.{kind}").value,
        )
        for kind in expected
    }
    assert found == {kind: pytest.approx(pair) for kind, pair in expected.items()}
    for metric in ("box_recall_covered", "box_f1_covered"):
        pooled = (
            sum(
                number * value(by_class, f"{metric}.{kind}").value
                for kind, (number, _) in expected.items()
            )
            / 6
        )
        assert value(by_class, metric).value == pytest.approx(pooled)
    metal = value(by_class, "box_f1_covered.metal")
    assert (metal.n_cases, metal.n_patients, metal.unit) == (
        2,
        2,
        "box",
    ) and metal.prevalence == pytest.approx(2 / 7)
    assert metal.threshold == value(by_class, "box_recall_covered").threshold
    differences = {record.metric for record in by_class.records if record.against}
    assert "box_recall_covered_difference" in differences and not any(
        "." in metric for metric in differences
    )


def test_classes_are_in_table_json_csv_and_page(by_class, tmp_path):
    from io import StringIO

    from rich.console import Console

    evaluation_tables.save(by_class, tmp_path)
    stored = {
        entry["metric"]: entry
        for entry in json.loads((tmp_path / "metrics.json").read_text())
        if entry["method"] == "ddpm"
    }
    assert stored["box_recall_covered.metal"]["value"] == 0.5
    rows = pd.read_csv(tmp_path / "classes.csv")
    assert list(rows["name"].unique()) == ["Frac.", "metal", "my class"] and len(rows) == 9
    row = rows[(rows["class"] == "metal") & (rows["method"] == "ddpm")].iloc[0]
    assert (row["boxes"], row["images"], row["box_recall_covered"]) == (2, 2, 0.5)
    assert row["box_f1_covered_low"] <= row["box_f1_covered"] <= row["box_f1_covered_high"]
    console = Console(width=100, file=StringIO())
    console.print(evaluation_tables.table(by_class))
    lines = console.file.getvalue().splitlines()
    (line,) = (line for line in lines if line.strip().startswith("Frac."))
    assert line.split()[:4] == ["Frac.", "ddpm", "3", "3"] and "1.000" in line
    assert sum("control: intensity" in line for line in lines[lines.index(line) :]) == 3, (
        "the better control of each class"
    )
    page = evaluation_report(tmp_path, by_class, {}).read_text()
    assert "Metrics: by class" in page and "Frac.: box F1, mass ratio @ healthy-quantile" in page


def test_the_forest_plot_has_panels_for_every_class(by_class, tmp_path, monkeypatch):
    drawn, make = [], plots.blank
    monkeypatch.setattr(plots, "blank", lambda *size: drawn.append(make(*size)) or drawn[-1])
    plots.forest(tmp_path / "forest.png", {"wrist": by_class.records})
    titles = [title for axes in drawn[0].axes if (title := axes.get_title())]
    assert (
        len(titles) == 8
        and [sum(name in title for title in titles) for name in ("Frac.", "metal", "my class")]
        == [2] * 3
    )


def test_figures_without_classes_have_no_table_of_classes(tmp_path):
    rng = np.random.default_rng(9)
    result = measure(
        "thor-wrist",
        [picture(rng, n, [Box(5, 6, 15, 18)] if n % 2 else []) for n in range(6)],
        SETTING,
    )
    evaluation_tables.save(result, tmp_path)
    assert (
        value(result, "box_recall_covered").value == 1 and not (tmp_path / "classes.csv").exists()
    )
    assert "by class" not in evaluation_report(tmp_path, result, {}).read_text()


def test_the_exact_threshold_keeps_the_rate_on_images_of_unequal_size_with_ties():
    rng = np.random.default_rng(5)
    maps = [rng.random(n).round(2) for n in (50, 400, 90)]
    chosen = healthy_rate_threshold(maps, 0.1).value
    assert np.mean([np.mean(one > chosen) for one in maps]) <= 0.1
    lower = max(v for one in maps for v in one if v < chosen)
    assert np.mean([np.mean(one > lower) for one in maps]) > 0.1
