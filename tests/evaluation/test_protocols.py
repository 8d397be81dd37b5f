"""The strict protocol: every record complete, nothing undefined written, methods beside
controls."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from sklearn.metrics import average_precision_score, roc_auc_score

from pseudohealthy.errors import Fault
from pseudohealthy.evaluation.protocols import CaseResult, Setting, strict
from pseudohealthy.evaluation.records import Record, summarise
from pseudohealthy.metrics.thresholds import Threshold, healthy_quantile
from pseudohealthy.report import evaluation_tables

CONTROL = "control: mean intensity"
THRESHOLD = Threshold(2.5, "healthy-quantile", {"quantile": 0.99, "n_patients": 9})


def cases(
    method="ddpm",
    *,
    gain=2.0,
    healthy=15,
    anomalous=15,
    maps=True,
    planes=False,
    seed=0,
    voxel_ml=0.001,
):
    """Each patient has one case; lesion voxels score higher by ``gain``, and so does the case."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(healthy + anomalous):
        label = int(number >= healthy)
        truth = rng.random(400) < 0.05 * label
        scores = (rng.normal(size=400) + gain * truth).astype(np.float32)
        found.append(
            CaseResult(
                case_id=f"case{number}",
                patient_id=f"p{number}",
                label=label,
                method=method,
                voxel_ml=voxel_ml,
                score=float(rng.normal() + gain * label),
                plane_scores=scores[:10] if planes else None,
                plane_labels=np.where(np.arange(10) < 9, truth[:10].astype(int), -1)
                if planes
                else None,
                map=scores if maps else None,
                truth=truth if maps else None,
            )
        )
    return found


def by_metric(evaluation, method="ddpm"):
    return {record.metric: record for record in evaluation.records if record.method == method}


@pytest.fixture(scope="module")
def both():
    given = cases(planes=True) + cases(CONTROL, gain=0.3, maps=False, seed=1)
    return given, strict(given, Setting(thresholds=THRESHOLD, resamples=300, mask="brain"))


def test_ranking_metrics_equal_scikit_learn(both):
    given, evaluation = both
    mine, found = [case for case in given if case.method == "ddpm"], by_metric(evaluation)
    labels, scores = [case.label for case in mine], [case.score for case in mine]
    assert found["image_auroc"].value == pytest.approx(roc_auc_score(labels, scores))
    assert found["image_average_precision"].value == pytest.approx(
        average_precision_score(labels, scores)
    )
    truth = np.concatenate([case.truth for case in mine])
    voxels = np.concatenate([case.map for case in mine])
    assert found["voxel_auroc_pooled"].value == pytest.approx(roc_auc_score(truth, voxels))
    assert found["voxel_average_precision_pooled"].value == pytest.approx(
        average_precision_score(truth, voxels)
    )
    keep = np.concatenate([case.plane_labels for case in mine]) >= 0
    plane_labels = np.concatenate([case.plane_labels for case in mine])[keep]
    plane_scores = np.concatenate([case.plane_scores for case in mine])[keep]
    assert found["plane_auroc"].value == pytest.approx(roc_auc_score(plane_labels, plane_scores))


def test_dice_equals_brute_force_pooled_and_per_case(both):
    given, evaluation = both
    mine, found = [case for case in given if case.method == "ddpm"], by_metric(evaluation)
    tp = [np.sum((case.map > 2.5) & case.truth) for case in mine]
    called = [np.sum(case.map > 2.5) for case in mine]
    reference = [case.truth.sum() for case in mine]
    per_case = [2 * t / (c + r) for t, c, r in zip(tp, called, reference, strict=True) if r]
    assert found["dice_pooled"].value == pytest.approx(2 * sum(tp) / (sum(called) + sum(reference)))
    assert found["dice_per_case_mean"].value == pytest.approx(np.mean(per_case))
    assert found["dice_per_case_median"].value == pytest.approx(np.median(per_case))
    assert found["n_empty_ref"].value == sum(r == 0 for r in reference) >= 15
    assert found["dice_per_case_mean"].n_cases == len(per_case) < found["dice_pooled"].n_cases == 30
    false = np.mean([c for c, case in zip(called, mine, strict=True) if case.label == 0]) * 0.001
    assert found["false_positive_volume_healthy_mean_ml"].value == pytest.approx(false)
    assert found["false_positive_volume_healthy_mean_ml"].n_cases == 15


def test_the_oracle_is_named_and_is_an_upper_bound(both):
    found = by_metric(both[1])
    assert found["dice_oracle_pooled"].threshold_source == "oracle"
    assert (
        found["dice_pooled"].threshold_source == "healthy-quantile"
        and found["dice_pooled"].threshold == 2.5
    )
    assert found["dice_oracle_pooled"].value >= found["dice_pooled"].value


def test_every_record_says_what_it_is(both):
    for record in both[1].records:
        assert record.protocol == "strict" and record.mask == "brain" and record.n_patients > 0
        assert record.prevalence is not None and np.isfinite(record.value)
        if not record.metric.startswith("n_"):
            low, high = record.ci95
            assert low <= record.value <= high and low < high
    assert by_metric(both[1])["image_auroc"].prevalence == 0.5


def test_the_paired_difference_is_taken_from_the_best_control():
    given = (
        cases()
        + cases(CONTROL, gain=0.3, maps=False, seed=1)
        + cases("control: area", gain=0, maps=False, seed=2)
    )
    records = strict(given, Setting(thresholds=THRESHOLD, resamples=300)).records
    value = {record.method: record.value for record in records if record.metric == "image_auroc"}
    best = max((name for name in value if name != "ddpm"), key=value.get)
    [difference] = [record for record in records if record.metric == "image_auroc_difference"]
    assert (difference.method, difference.against) == ("ddpm", best)
    assert difference.value == pytest.approx(value["ddpm"] - value[best])
    assert difference.ci95[0] < difference.value < difference.ci95[1]


def test_a_method_equal_to_its_control_differs_by_exactly_nothing():
    records = strict(cases() + cases(CONTROL), Setting(resamples=100)).records
    differences = [record for record in records if record.against]
    assert {record.metric for record in differences} >= {
        "image_auroc_difference",
        "voxel_auroc_pooled_difference",
    }
    assert all(record.value == 0 and record.ci95 == (0, 0) for record in differences)


def test_methods_on_other_cases_are_not_paired():
    evaluation = strict(cases() + cases(CONTROL, healthy=10, maps=False), Setting(resamples=50))
    assert not [record for record in evaluation.records if record.against]
    assert any("other cases" in note for note in evaluation.notes)


def test_one_class_leaves_a_note_and_no_nan():
    evaluation = strict(cases(healthy=0), Setting(thresholds=THRESHOLD, resamples=50))
    assert "image_auroc" not in by_metric(evaluation) and "voxel_auroc_pooled" in by_metric(
        evaluation
    )
    assert any("no healthy case" in note for note in evaluation.notes)
    healthy_only = strict(cases(anomalous=0), Setting(thresholds=THRESHOLD, resamples=50))
    assert set(by_metric(healthy_only)) == {"n_empty_ref", "false_positive_volume_healthy_mean_ml"}


def test_one_patient_has_no_interval():
    given = cases(healthy=0, anomalous=1)
    assert (
        by_metric(strict(given, Setting(thresholds=THRESHOLD, resamples=50)))["dice_pooled"].ci95
        is None
    )


def test_cases_without_a_reference_or_a_label_are_named_and_left_out():
    given = cases()
    given[-1].truth = None
    given[0].label = None
    evaluation = strict(given, Setting(thresholds=THRESHOLD, resamples=50))
    assert by_metric(evaluation)["dice_pooled"].n_cases == 29
    assert by_metric(evaluation)["image_auroc"].n_cases == 29
    assert any("1 case has a map but no reference" in note for note in evaluation.notes)


def test_without_a_threshold_only_the_oracle_dice_is_given():
    found = by_metric(strict(cases(), Setting(resamples=50)))
    assert "dice_oracle_pooled" in found and "dice_pooled" not in found


def test_unknown_voxel_volume_is_counted_in_voxels():
    assert "false_positive_volume_healthy_mean_voxels" in by_metric(
        strict(cases(voxel_ml=None), Setting(thresholds=THRESHOLD, resamples=50))
    )


def test_sensitivity_and_specificity_stand_at_the_score_threshold():
    given = cases(maps=False)
    threshold = healthy_quantile(np.array([case.score for case in given if case.label == 0]), 0.9)
    found = by_metric(strict(given, Setting(score_thresholds=threshold, resamples=50)))
    assert found["image_specificity"].value >= 0.9 and found["image_specificity"].n_cases == 15
    assert found["image_sensitivity"].threshold_source == "healthy-quantile"


@pytest.mark.parametrize("field", ["score", "map", "plane_scores"])
def test_a_score_that_is_not_finite_is_refused_with_its_case(field):
    values = {"score": 1.0, "map": np.ones(3), "plane_scores": np.ones(3)}
    values[field] = np.array([1, np.nan, 2]) if field != "score" else float("inf")
    with pytest.raises(Fault, match=r"NONFINITE_SCORE.*case=c1"):
        CaseResult("c1", "p1", 1, **values)


def test_contradictions_are_refused():
    with pytest.raises(Fault, match="LABEL_CONFLICT"):
        CaseResult("c1", "p1", 0, 1.0, map=np.ones(2), truth=np.array([True, False]))
    with pytest.raises(Fault, match="DUPLICATE_CASE"):
        strict([*cases(), cases()[0]])
    with pytest.raises(Fault, match="NO_CASES"):
        strict([])


def test_the_table_lists_methods_above_controls_and_marks_the_best(both):
    evaluation = both[1]
    console = Console(width=200, no_color=True, file=io.StringIO())
    console.print(evaluation_tables.table(evaluation))
    text = console.file.getvalue()
    assert text.index("ddpm") < text.index(CONTROL)
    best = by_metric(evaluation)["image_auroc"].value
    assert (
        f"{best:.3f}*" in text and "image AP (chance 0.5)" in summarise(evaluation.records).headings
    )
    assert "ddpm minus best control" in text


def test_numbers_of_different_settings_never_share_a_column():
    one = strict(cases(), Setting(thresholds=THRESHOLD, mask="brain", resamples=20)).records
    other = strict(cases("ae"), Setting(thresholds=THRESHOLD, mask="all", resamples=20)).records
    assert len(summarise([*one, *other]).headings) == 2 * len(summarise(one).headings)
    assert not summarise([*one, *other]).best


def test_what_is_saved_can_be_read_back_and_is_harmless_in_a_spreadsheet(tmp_path):
    given = cases() + cases(CONTROL, gain=0.3, seed=1)
    for case in given:
        if case.case_id == "case0":
            case.case_id = "=cmd|' /C calc'!A0"
    evaluation = strict(
        given, Setting(thresholds=THRESHOLD, score_thresholds=Threshold(1.0, "given"), resamples=50)
    )
    names = {path.name for path in evaluation_tables.save(evaluation, tmp_path / "out")}
    assert names == {"metrics.json", "cases.csv", "roc.png", "precision_recall.png", "scores.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    stored = [
        Record.from_dict(row) for row in json.loads((tmp_path / "out" / "metrics.json").read_text())
    ]
    assert stored == evaluation.records
    rows = pd.read_csv(tmp_path / "out" / "cases.csv")
    assert len(rows) == 60 and rows.case_id[0].startswith("'=cmd")
    assert rows.dice[rows.label == 0].isna().all() and set(rows.label) == {0, 1}
