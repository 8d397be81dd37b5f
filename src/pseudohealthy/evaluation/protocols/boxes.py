"""Radiographs with annotated boxes: boxes found, false alarms, FROC, and THOR's wrist rule.

`boxes` predicts: each connected region above the threshold is a box, scored by its highest value,
and matches an annotated one by intersection over union. `wrist` is the rule of Bercea et al.
(2024), which predicts none; its intended variant takes the threshold at which 5 % of healthy
validation foreground is called anomalous, the published one walks 1,000 thresholds over whole
healthy test images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from scipy import ndimage

from pseudohealthy.counts import many
from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.metric_frame import Frame, Setting, patients, run
from pseudohealthy.evaluation.records import Box, CaseResult
from pseudohealthy.metrics import bootstrap, table
from pseudohealthy.metrics.thresholds import Threshold

HEALTHY_RATE = 0.05  # of healthy pixels, THOR
# Intersection over union; an anomaly map's region is rarely as tight as a drawn box.
OVERLAPS = (0.1, 0.5)
FROC_RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)  # false boxes per image (LUNA16, Setio et al. 2017)


@dataclass(frozen=True)
class WristRule:
    """What the published rule says about one annotated box."""

    tp: float
    fp: float
    precision: float
    recall: float
    f1: float


def boxes(cases: Iterable[CaseResult], setting: Setting) -> Evaluation:
    """Measure recall, precision and F1 of boxes at the method's threshold, and FROC, at two
    overlaps."""
    return run(cases, setting, _measure_boxes)


def wrist(cases: Iterable[CaseResult], setting: Setting) -> Evaluation:
    """Measure recall, precision and F1 of THOR's rule, averaged over annotated boxes and by class.

    A class has its number of boxes (``n_boxes.CLASS``), ``box_recall_covered.CLASS`` and
    ``box_f1_covered.CLASS``, as in THOR's table of radiographs. They get no differences to
    controls: a dozen more tests would cost the pooled ones power.
    """
    return run(cases, setting, _measure_wrist)


def box_mask(box: Box, shape: tuple[int, int]) -> np.ndarray:
    """Return (H, W) bool: every pixel that the box touches."""
    mask = np.zeros(shape, dtype=bool)
    mask[max(0, floor(box.y0)) : ceil(box.y1), max(0, floor(box.x0)) : ceil(box.x1)] = True
    return mask


def wrist_rule(
    values: np.ndarray, box: np.ndarray, negative: np.ndarray, threshold: float
) -> WristRule:
    """Judge one annotated box as THOR does.

    It is found where more than 10 % of it is above the threshold. False positives are the map mass
    outside over that inside, whole, at most 10; they count no detections.

    Args:
        values: map (H, W) in [0, 1].
        box: (H, W) bool, annotated.
        negative: (H, W) bool, certainly healthy.
        threshold: of the map.
    """
    above = np.where(values < threshold, 0, values).astype(np.float64)
    tp = float(np.count_nonzero(above[box]) > 0.1 * np.count_nonzero(box))
    fp = float(min(10, int(above[negative].sum() / max(above[box].sum(), 1.0))))
    precision = tp / max(tp + fp, 1.0)
    return WristRule(tp, fp, precision, tp, 2 * precision * tp / (precision + tp + 1e-8))


def healthy_rate_threshold(maps: Sequence[np.ndarray], rate: float = HEALTHY_RATE) -> Threshold:
    """Return the lowest threshold that at most ``rate`` of the pixels exceed, on average over maps.

    It is exact.
    """
    values = np.concatenate([np.ravel(amap) for amap in maps])
    weights = np.concatenate(
        [np.full(np.size(amap), 1 / np.size(amap) / len(maps)) for amap in maps]
    )
    order = np.argsort(values)
    # Above values[order][i], where that is the last of its ties.
    above = 1 - np.cumsum(weights[order])
    index = int(np.argmax(above <= rate + 1e-9))
    detail = {"quantile": 1 - rate, "n_values": int(values.size), "n_maps": len(maps)}
    return Threshold(float(values[order][index]), "healthy-quantile", detail)


def published_rate_threshold(maps: Sequence[np.ndarray]) -> tuple[Threshold, np.ndarray]:
    """Return the first of 1,000 thresholds in [0, 1) whose mean healthy rate is low enough.

    That is at most `HEALTHY_RATE`.
    All rates, in percent, come with it.
    """
    candidates = np.linspace(0, 1, 1000, endpoint=False)
    rates = np.mean([_rates(np.ravel(values), candidates) for values in maps], axis=0)
    passing = np.flatnonzero(rates <= 100 * HEALTHY_RATE)
    value = candidates[passing[0]] if len(passing) else candidates[-1]
    return (
        Threshold(
            float(value), "healthy-quantile", {"search": "1,000 thresholds", "n_maps": len(maps)}
        ),
        rates,
    )


def iou(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    overlap = max(width, 0.0) * max(height, 0.0)
    return overlap / (_area(one) + _area(other) - overlap) if overlap else 0.0


def predicted(values: np.ndarray, threshold: float) -> list[tuple[Box, float]]:
    """Return a box and its score for each region of a map (H, W) above the threshold, best first.

    The score is the highest value of the region.
    """

    labels, count = ndimage.label(values > threshold, structure=np.ones((3, 3)))
    scores = ndimage.maximum(values, labels, np.arange(1, count + 1)) if count else []
    predictions = []
    for (rows, columns), score in zip(ndimage.find_objects(labels), scores, strict=True):
        predictions.append((Box(columns.start, rows.start, columns.stop, rows.stop), float(score)))
    return sorted(predictions, key=lambda pair: -pair[1])


def matched(
    predictions: Sequence[tuple[Box, float]], annotated: Sequence[Box], overlap: float
) -> np.ndarray:
    """Return which predicted boxes (best first) hit an annotated one.

    Each takes the free annotated box it overlaps most, if by at least ``overlap``.
    """
    free, hits = list(annotated), np.zeros(len(predictions), dtype=bool)
    for number, (box, _) in enumerate(predictions):
        best = max(free, key=lambda other: iou(box, other), default=None)
        if best is not None and iou(box, best) >= overlap:
            free.remove(best)
            hits[number] = True
    return hits


def froc(
    scores: np.ndarray,
    hits: np.ndarray,
    patient: np.ndarray,
    annotated: np.ndarray,
    images: np.ndarray,
    weight: np.ndarray,
) -> np.ndarray:
    """Return the mean sensitivity at `FROC_RATES` false boxes per image, in every resample.

    Equal scores pass together, misses first.

    Args:
        scores: (N,) of the predicted boxes.
        hits: (N,) bool.
        patient: (N,) row of each one's patient.
        annotated: (P,) boxes by patient.
        images: (P,) by patient.
        weight: (resamples, P).
    """
    order = np.lexsort((hits, -scores))
    total, frames = weight @ annotated, weight @ images
    parts = []
    for start in range(0, len(weight), bootstrap.CHUNK):
        chunk = slice(start, start + bootstrap.CHUNK)
        counts = weight[chunk][:, patient[order]].astype(np.float64)
        true_boxes = np.concatenate(
            [np.zeros((len(counts), 1)), np.cumsum(counts * hits[order], axis=1)], axis=1
        )
        false_boxes = np.cumsum(counts * ~hits[order], axis=1)
        sensitivities = [
            np.take_along_axis(
                true_boxes, (false_boxes <= rate * frames[chunk, None]).sum(1)[:, None], 1
            )[:, 0]
            for rate in FROC_RATES
        ]
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append(
                np.mean(sensitivities, axis=0) / np.where(total[chunk] > 0, total[chunk], np.nan)
            )
    return np.concatenate(parts)


def _measure_boxes(frame: Frame, group: list[CaseResult]) -> None:
    cases = _annotated(frame, group)
    threshold = frame.threshold or _healthy_threshold(frame, cases)
    if not cases or threshold is None:
        return
    predictions = [predicted(case.on_grid()[0][0], threshold.value) for case in cases]
    annotated = np.asarray([len(case.boxes or ()) for case in cases])
    if not annotated.sum():
        frame.note("no annotated box, so nothing to find")
        return
    patient, number = patients(cases)
    weight = bootstrap.weights(number, frame.setting.resamples, frame.setting.seed)
    with_all = np.concatenate([np.ones((1, number)), weight])
    share = float((annotated > 0).mean())
    n_predicted = np.asarray([len(case_boxes) for case_boxes in predictions])
    for overlap in OVERLAPS:
        hits = [
            matched(case_boxes, case.boxes or (), overlap)
            for case_boxes, case in zip(predictions, cases, strict=True)
        ]
        tp = np.asarray([hit.sum() for hit in hits])
        end = f"iou{round(100 * overlap)}"
        frame.ratio(f"box_recall_{end}", cases, tp, annotated, share, threshold)
        frame.ratio(f"box_precision_{end}", cases, tp, n_predicted, share, threshold)
        frame.ratio(f"box_f1_{end}", cases, 2 * tp, n_predicted + annotated, share, threshold)
        scores = np.asarray(
            [score for case_boxes in predictions for _, score in case_boxes], dtype=np.float64
        )
        boxes_of, images_of = (
            np.bincount(patient, part, number) for part in (annotated, np.ones(len(cases)))
        )
        # The first row draws every patient once: the value itself.
        resampled = froc(
            scores,
            np.concatenate(hits),
            np.repeat(patient, n_predicted),
            boxes_of,
            images_of,
            with_all,
        )
        frame.put(f"box_froc_{end}", float(resampled[0]), resampled[1:], cases, share, threshold)
    frame.ratio(
        "false_boxes_per_image", cases, n_predicted - tp, np.ones(len(cases)), share, threshold
    )


def _measure_wrist(frame: Frame, group: list[CaseResult]) -> None:
    cases = _annotated(frame, group)
    threshold = _healthy_threshold(frame, cases)
    if not cases or threshold is None:
        return
    kinds = sorted({box.kind for case in cases for box in case.boxes or () if box.kind})
    sums = {kind: np.zeros((len(cases), 4)) for kind in ("", *kinds)}  # "": of all classes
    for index, case in enumerate(cases):
        values = case.on_grid()[0][0]
        masks = [box_mask(box, values.shape) for box in case.boxes or ()]
        for box, mask in zip(case.boxes or (), masks, strict=True):
            rule = wrist_rule(values, mask, ~np.any(masks, axis=0), threshold.value)
            for kind in {"", box.kind}:
                sums[kind][index] += [1, rule.recall, rule.precision, rule.f1]
    for kind, (number, *figures) in ((kind, part.T) for kind, part in sums.items()):
        share = float((number > 0).mean())
        for name, values in zip(
            ("box_recall_covered", "box_precision_covered", "box_f1_covered"), figures, strict=True
        ):
            if not kind:
                frame.ratio(name, cases, values, number, share, threshold)
            elif table.shown_in(name, "table"):
                frame.ratio(f"{name}.{kind}", cases, values, number, share, threshold)
        if kind:
            about = [case for case, boxes in zip(cases, number, strict=True) if boxes]
            frame.put(f"n_boxes.{kind}", float(number.sum()), None, about, share)


def _annotated(frame: Frame, group: list[CaseResult]) -> list[CaseResult]:
    cases = [
        case
        for case in group
        if case.boxes is not None and case.map is not None and len(case.on_grid()[0]) == 1
    ]
    if len(cases) < len(group):
        missing = len(group) - len(cases)
        frame.note(
            f"{many(missing, 'case')} without boxes, or with more than one plane,"
            f" {'is' if missing == 1 else 'are'} not measured"
        )
    return cases


def _healthy_threshold(frame: Frame, cases: list[CaseResult]) -> Threshold | None:
    """Return where 5 % of healthy pixels lie above; None with a note where no healthy case is
    known."""
    source = cases if frame.setting.published else frame.validation
    healthy = [case for case in source if case.label == HEALTHY and case.map is not None]
    if not healthy and not frame.setting.published:
        healthy = [case for case in cases if case.label == HEALTHY]
        frame.note(
            "no healthy validation case: the 5 % threshold is taken from the healthy test cases"
        )
    if not healthy:
        frame.note("no healthy case to take the 5 % threshold from")
        return None
    if frame.setting.published:
        return published_rate_threshold([case.on_grid()[0] for case in healthy])[0]
    return healthy_rate_threshold([np.asarray(case.map) for case in healthy])


def _rates(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    ordered = np.sort(values)
    return 100 * (
        1 - np.searchsorted(ordered, thresholds.astype(ordered.dtype), side="right") / values.size
    )


def _area(box: Box) -> float:
    return (box.x1 - box.x0) * (box.y1 - box.y0)
