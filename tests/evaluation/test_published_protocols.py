"""Each protocol gives the published figure in its published variant and, by default, the one that
was meant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from measured import SETTING, value
from scipy import ndimage
from skimage.filters import threshold_otsu
from sklearn.metrics import average_precision_score, roc_auc_score

from pseudohealthy.errors import Fault
from pseudohealthy.evaluation.protocols import PROTOCOLS, CaseResult, find, measure
from pseudohealthy.evaluation.records import Place
from pseudohealthy.maps import volume_filters
from pseudohealthy.metrics.thresholds import Threshold

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")

SHAPE = (6, 50, 50)


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
