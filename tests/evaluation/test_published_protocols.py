"""Each protocol gives the published figure in its published variant and, by default, the one that
was meant."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from skimage.filters import threshold_otsu
from sklearn.metrics import average_precision_score, roc_auc_score

from pseudohealthy.errors import Fault
from pseudohealthy.evaluation.protocols import PROTOCOLS, CaseResult, Setting, find, measure
from pseudohealthy.evaluation.protocols.boxes import (
    FROC_RATES,
    froc,
    healthy_rate_threshold,
    iou,
    matched,
    predicted,
)
from pseudohealthy.evaluation.records import Box, Place
from pseudohealthy.maps import volume_filters
from pseudohealthy.metrics.thresholds import Threshold
from pseudohealthy.report import evaluation_tables, plots
from pseudohealthy.report.page import evaluation_report

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")

SHAPE = (6, 50, 50)
SETTING = Setting(resamples=100)


def volume(rng, label, name, method="ddpm", gain=1.5, shape=SHAPE):
    """A round head with noise in it and, where diseased, a lesion that is brighter."""
    rows, columns = np.mgrid[: shape[1], : shape[2]] / shape[1] - 0.5
    brain = np.broadcast_to(rows**2 + columns**2 < 0.2, shape).copy()
    truth = np.zeros(shape, bool)
    if label:
        y, x = rng.integers(18, 28, 2)
        truth[1 : 1 + max(1, shape[0] - 2), y : y + rng.integers(6, 11), x : x + 6] = True
    values = (
        ndimage.gaussian_filter(rng.random(shape), (0, 1, 1)).astype(np.float32)
        + gain * 0.2 * truth
    )
    # ties, and few thresholds for brute force.
    values = (values * brain).round(2).astype(np.float32)
    where = brain | truth
    return CaseResult(
        name,
        name,
        label,
        float(values.mean()),
        map=values[where],
        truth=truth[where],
        method=method,
        place=Place(where, brain),
        voxel_ml=0.001,
    )


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(0)
    return [volume(rng, i % 2, f"c{i}") for i in range(8)], [
        volume(rng, i % 2, f"v{i}") for i in range(4)
    ]


def value(evaluation, metric):
    (record,) = (r for r in evaluation.records if r.metric == metric and r.method == "ddpm")
    return record


def slices(cases, inside):
    for case in cases:
        values, truth, place = case.on_grid()
        for plane in np.flatnonzero(truth.any((1, 2))):
            keep = place.evaluated[plane] if inside else np.ones(SHAPE[1:], bool)
            yield values[plane][keep], truth[plane][keep]


def dice(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def test_names_are_known_or_refused_with_a_hint():
    assert find("behrendt:published")[1] and not find("behrendt")[1]
    for wrong in ("lenient", "strict:published", "behrend"):
        with pytest.raises(Fault) as caught:
            find(wrong)
        assert (caught.value.code, caught.value.exit) == ("PROTOCOL", 2)
    assert "did you mean 'behrendt'" in str(caught.value)


@pytest.mark.parametrize(
    "name", [*PROTOCOLS, *(f"{n}:published" for n, p in PROTOCOLS.items() if p.published)]
)
def test_every_protocol_says_what_it_hides_and_lists_every_case(name, cohort):
    test, validation = cohort
    result = measure(
        name, test, replace(SETTING, validation=validation, thresholds=Threshold(0.7, "given"))
    )
    hides = PROTOCOLS[name.split(":")[0]].hides
    assert hides in result.notes[0] and name in result.notes[0]
    for record in result.records:
        assert (
            record.protocol == "strict"
            if name == "strict"
            else record.protocol.startswith(name) and hides in record.protocol
        )
        assert np.isfinite(record.value) and record.n_patients > 0
    assert {row["case_id"] for row in result.rows} == {case.case_id for case in test}


@pytest.mark.parametrize("name", ["wolleb", "wolleb:published"])
def test_wolleb_averages_diseased_slices(name, cohort):
    result = measure(name, cohort[0], SETTING)
    pairs = list(slices(cohort[0], inside=name == "wolleb"))
    overlaps = [dice(values > threshold_otsu(values), truth) for values, truth in pairs]
    areas = [roc_auc_score(truth, values) for values, truth in pairs]
    assert value(result, "dice_otsu_per_slice_mean").value == pytest.approx(
        np.mean(overlaps), abs=1e-3
    )
    assert value(result, "voxel_auroc_per_slice_mean").value == pytest.approx(np.mean(areas))
    assert value(result, "dice_otsu_per_slice_mean").n_cases == 4
    assert any("without a lesion" in note for note in result.notes), (
        "healthy cases are left out, and it says so"
    )


def test_background_flatters_the_published_auroc(cohort):
    inside, whole = (measure(name, cohort[0], SETTING) for name in ("wolleb", "wolleb:published"))
    metric = "voxel_auroc_per_slice_mean"
    assert value(whole, metric).value > value(inside, metric).value


def behrendt_by_hand(test, validation, published):
    def processed(case):
        values, truth, place = case.on_grid()
        eroded = volume_filters.erode(place.foreground, SHAPE[2] // 25)
        if published:
            return ndimage.median_filter(values * eroded, 5), truth, np.ones(SHAPE, bool)
        return ndimage.median_filter(values, 5) * eroded, truth, place.evaluated

    scores, labels = (
        np.concatenate(part)
        for part in zip(*[(v[w], t[w]) for v, t, w in map(processed, validation)], strict=True)
    )
    candidates = np.unique(scores)
    best = candidates[np.argmax([dice(scores > c, labels) for c in candidates])]
    overlaps, precisions = [], []
    for case in test:
        values, truth, where = processed(case)
        if truth.any():
            overlaps.append(dice(volume_filters.without_small(values > best, 7), truth))
            precisions.append(average_precision_score(truth[where], values[where]))
    return best, np.mean(overlaps), np.mean(precisions)


def test_behrendt_takes_its_threshold_from_labelled_validation(cohort):
    test, validation = cohort
    result = measure("behrendt", test, replace(SETTING, validation=validation))
    _, overlap, precision = behrendt_by_hand(test, validation, published=False)
    record = value(result, "dice_validation_per_case_mean")
    assert record.value == pytest.approx(overlap) and record.threshold_source == "validation"
    assert value(result, "voxel_average_precision_per_case_mean").value == pytest.approx(precision)
    assert value(result, "n_empty_ref").value == 4 and record.n_cases == 4
    assert "median 5" in record.postprocessing
    rows = {row["case_id"]: row for row in result.rows}
    assert rows["c0"]["dice"] is None and rows["c1"]["dice"] > 0
    published = measure("behrendt:published", test, replace(SETTING, validation=validation))
    _, _, whole = behrendt_by_hand(test, validation, published=True)
    assert value(published, "voxel_average_precision_per_case_mean").value == pytest.approx(whole)
    assert published.records[0].protocol.startswith("behrendt:published")


def test_behrendt_without_labelled_validation_has_no_dice(cohort):
    test, validation = cohort
    healthy = [case for case in validation if not case.label]
    result = measure("behrendt", test, replace(SETTING, validation=healthy))
    assert not any("dice_validation" in record.metric for record in result.records)
    assert any("no validation case has a lesion" in note for note in result.notes)


def test_strict_adds_the_validation_threshold(cohort):
    test, validation = cohort
    setting = replace(SETTING, validation=validation, thresholds=Threshold(0.7, "healthy-quantile"))
    result = measure("strict", test, setting)
    scores, labels = (
        np.concatenate(part) for part in zip(*(case.pair for case in validation), strict=True)
    )
    record = value(result, "dice_validation_pooled")
    best = max(dice(scores > c, labels) for c in np.unique(scores))
    assert dice(scores > record.threshold, labels) == pytest.approx(best)
    found, truth = (
        np.concatenate(part) for part in zip(*(case.pair for case in test), strict=True)
    )
    assert record.value == pytest.approx(dice(found > record.threshold, truth))
    each = [case.pair for case in test if case.label]
    otsu = [dice(values > threshold_otsu(values), truth) for values, truth in each]
    oracle = [max(dice(values >= c, truth) for c in np.unique(values)) for values, truth in each]
    assert value(result, "dice_otsu_per_case_mean").value == pytest.approx(np.mean(otsu), abs=2e-3)
    assert value(result, "dice_oracle_per_case_mean").value == pytest.approx(np.mean(oracle))
    assert (
        value(result, "lesion_detection_rate").n_cases == 4
        and 0 < value(result, "voxel_aupro_30").value <= 1
    )
    assert value(result, "false_positive_regions_per_case").value > 0


def test_thor_pools_lesion_slices_by_size(cohort):
    pairs = list(slices(cohort[0], inside=True))
    values, truth = (np.concatenate(part) for part in zip(*pairs, strict=True))
    result = measure("thor", cohort[0], SETTING)
    best = max(dice(values >= c, truth) for c in np.unique(values[truth]))
    record = value(result, "dice_oracle_pooled")
    assert record.value == pytest.approx(best) and record.threshold_source == "oracle"
    precision = value(result, "voxel_average_precision_pooled").value
    assert precision == pytest.approx(average_precision_score(truth, values))
    pixels = np.array([t.sum() for _, t in pairs])
    raw = measure("thor:published", cohort[0], SETTING)
    values, truth = (
        np.concatenate(part) for part in zip(*slices(cohort[0], inside=False), strict=True)
    )
    tried = max(dice(values > np.float32(c), truth) for c in np.linspace(0, 1, 101))
    assert value(raw, "dice_oracle_pooled").value == pytest.approx(tried)
    assert {r.metric for r in raw.records if r.metric.startswith("dice")} == {
        "dice_oracle_pooled",
        "dice_oracle_pooled_small",
    }
    assert pixels.max() <= 71 < pixels.max() * 128**2 / 2500, (
        "50 x 50 pixels show a larger share of the lesion"
    )
    assert "dice_oracle_pooled_medium" in {r.metric for r in result.records}


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


def test_ct_ranks_slices_beside_a_ruler():
    rng = np.random.default_rng(6)
    cases = []
    for n in range(10):
        labels = (np.arange(5) == n % 5) & (n > 3)
        scores = rng.normal(size=5) + labels
        facts = {"tissue-area": rng.random(5) + labels}
        cases.append(
            CaseResult(
                f"c{n}",
                f"p{n}",
                int(n > 3),
                scores.max(),
                scores,
                labels.astype(int),
                method="ddpm",
                facts=facts,
            )
        )
    result = measure("ct", cases, SETTING)
    labels, scores = (
        np.concatenate([getattr(case, name) for case in cases])
        for name in ("plane_labels", "plane_scores")
    )
    record = value(result, "plane_auroc")
    assert record.value == pytest.approx(roc_auc_score(labels, scores)) and record.n_patients == 10
    (ruler,) = (
        r
        for r in result.records
        if r.metric == "plane_auroc" and r.method == "control: tissue-area"
    )
    areas = np.concatenate([case.facts["tissue-area"] for case in cases])
    assert ruler.value == pytest.approx(roc_auc_score(labels, areas))
    (difference,) = (r for r in result.records if r.metric == "plane_auroc_difference")
    assert (
        difference.against == "control: tissue-area" and difference.p_holm >= difference.p_value > 0
    )
