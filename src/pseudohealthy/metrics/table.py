"""The one table of metrics: names and units, which end is better, and where each is shown.

A metric that the package measures is a row here. One from elsewhere is a function under `register`,
in any module: tables, CSV, LaTeX, report, differences to the best control and `sweep` show it, with
nothing else changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from pseudohealthy.metrics.lesions import SIZES
from pseudohealthy.registry import Registry

Place = Literal["table", "forest", "strata", "sweep", "page", "filler"]
Unit = Literal["case", "plane", "voxel", "lesion", "box"]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: its key in metrics.json, in comparison.csv and sweep.csv.
        heading: its words in tables; after "@" follows the source of the threshold. "": those of
            the name.
        unit: what is counted.
        family: metrics of one family stand in one table of the terminal.
        better: which end is; "" of a number that is no merit.
        resampled: whether patients are resampled for an interval; a count has none.
        shown: "table": in tables, CSV, LaTeX, report, sweeps, and as difference to the best
            control; "forest": in the forest plot, in comparison.md and in the notes; "strata": by
            site and lesion size; "sweep": in sweeps without being in tables; "page": in
            docs/results.md, "filler": there, beside few others.
        sorts: tables are sorted by the metric with the lowest of these that they have; 0 never
            sorts.
        measure: given a `Frame` of the strict protocol and one method's results, it puts the figure
            there.
    """

    name: str
    heading: str
    unit: Unit
    family: str
    better: Literal["higher", "lower", ""] = "higher"
    resampled: bool = True
    shown: tuple[Place, ...] = ()
    sorts: int = 0
    measure: Callable[[Any, list[Any]], None] | None = None

    def merit(self, value: float) -> float:
        """Return the value, or its negative where lower is better, so that the best one is the
        highest."""
        return -value if self.better == "lower" else value

    def words(self, source: str | None = None) -> str:
        """Return the heading with the source of the threshold, and the better end where it is the
        lower."""
        text = self.heading or self.name.replace("_", " ")
        return (f"{text} {source}" if text.endswith("@") else text) + self.warning

    @property
    def warning(self) -> str:
        """What a heading says where the lower end is the better one."""
        return " (lower is better)" if self.better == "lower" and "table" in self.shown else ""


COUNT: dict[str, Any] = {"better": "", "resampled": False}
LOWER: dict[str, Any] = {"better": "lower"}
_SIZES = [f"_{size}" for size in SIZES]  # of lesions

# In the order of tables
_ROWS = (
    Metric(
        "image_auroc",
        "image AUROC",
        "case",
        "image",
        shown=("table", "forest", "strata", "page"),
        sorts=2,
    ),
    Metric(
        "image_average_precision", "image AP", "case", "image", shown=("table", "forest", "filler")
    ),
    Metric("image_fpr_at_95_tpr", "", "case", "image", **LOWER),
    Metric("image_sensitivity", "", "case", "image"),
    Metric("image_specificity", "", "case", "image"),
    Metric(
        "plane_auroc", "plane AUROC", "plane", "image", shown=("table", "forest", "page"), sorts=3
    ),
    Metric("plane_average_precision", "plane AP", "plane", "image", shown=("table", "filler")),
    Metric("n_planes_without_foreground", "", "plane", "counts", **COUNT),
    Metric(
        "voxel_auroc_pooled", "voxel AUROC, pooled", "voxel", "voxel", shown=("table", "forest")
    ),
    Metric(
        "voxel_average_precision_pooled",
        "voxel AP, pooled",
        "voxel",
        "voxel",
        shown=("table", "forest", "strata", "page"),
        sorts=1,
    ),
    *(Metric(f"voxel_average_precision_pooled{size}", "", "voxel", "voxel") for size in _SIZES),
    Metric("voxel_fpr_at_95_tpr_pooled", "", "voxel", "voxel", **LOWER),
    Metric("voxel_aupro_30", "voxel AUPRO, FPR to 0.3", "voxel", "voxel", shown=("table",)),
    Metric(
        "voxel_auroc_per_slice_mean",
        "voxel AUROC, mean per diseased slice",
        "plane",
        "voxel",
        shown=("table",),
    ),
    Metric(
        "voxel_auroc_per_case_mean", "voxel AUROC, mean per case", "case", "voxel", shown=("table",)
    ),
    Metric(
        "voxel_average_precision_per_case_mean",
        "voxel AP, mean per case",
        "case",
        "voxel",
        shown=("table",),
    ),
    Metric("n_empty_ref", "", "case", "counts", **COUNT),
    Metric("dice_pooled", "Dice, pooled @", "voxel", "dice", shown=("table", "forest", "page")),
    Metric("dice_per_case_mean", "Dice, mean per case @", "case", "dice", shown=("table",)),
    Metric("dice_per_case_median", "", "case", "dice"),
    Metric("dice_validation_pooled", "Dice, pooled @", "voxel", "dice", shown=("table",)),
    Metric(
        "dice_validation_per_case_mean",
        "Dice, mean per case @",
        "case",
        "dice",
        shown=("table", "page"),
    ),
    Metric("dice_validation_per_case_median", "", "case", "dice"),
    Metric("dice_validation_per_slice_mean", "", "plane", "dice"),
    Metric("dice_otsu_pooled", "", "voxel", "dice"),
    Metric("dice_otsu_per_case_mean", "", "case", "dice"),
    Metric(
        "dice_otsu_per_slice_mean",
        "Dice, mean per diseased slice @",
        "plane",
        "dice",
        shown=("table",),
    ),
    Metric(
        "dice_oracle_pooled",
        "Dice, pooled @",
        "voxel",
        "dice",
        shown=("table", "forest", "strata", "page"),
    ),
    *(
        Metric(
            f"dice_oracle_pooled{size}",
            f"Dice, pooled, {size[1:]} @",
            "voxel",
            "dice",
            shown=("table",),
        )
        for size in _SIZES
    ),
    Metric("dice_oracle_per_case_mean", "", "case", "dice"),
    Metric(
        "lesion_detection_rate", "lesions found @", "lesion", "lesion", shown=("table", "forest")
    ),
    *(Metric(f"lesion_detection_rate{size}", "", "lesion", "lesion") for size in _SIZES),
    *(
        Metric(f"lesion_detection_rate_iou10{size}", "", "lesion", "lesion")
        for size in ("", *_SIZES)
    ),
    *(
        Metric(f"false_positive_regions_per_case{size}", "", "case", "false alarms", **LOWER)
        for size in ("", *_SIZES)
    ),
    *(
        Metric(f"false_positive_volume_healthy_mean_{unit}", "", "case", "false alarms", **LOWER)
        for unit in ("voxels", "ml")
    ),
    Metric("false_boxes_per_image", "", "case", "false alarms", **LOWER),
    Metric("box_recall_iou10", "boxes found, IoU 0.1 @", "box", "box", shown=("table",)),
    Metric("box_precision_iou10", "", "box", "box"),
    Metric("box_f1_iou10", "box F1, IoU 0.1 @", "box", "box", shown=("table",)),
    Metric("box_froc_iou10", "FROC, IoU 0.1", "box", "box", shown=("table", "page")),
    *(
        Metric(f"box_{what}_iou50", "", "box", "box")
        for what in ("recall", "precision", "f1", "froc")
    ),
    Metric("box_recall_covered", "boxes 10 % covered @", "box", "box", shown=("table",)),
    Metric("box_precision_covered", "", "box", "box"),
    Metric("box_f1_covered", "box F1, mass ratio @", "box", "box", shown=("table",)),
    Metric("n_boxes", "", "box", "counts", **COUNT),
    Metric("healthy_residual_mean", "", "voxel", "health", "lower", shown=("sweep",)),
    Metric("healthy_false_positive_share", "", "voxel", "health", "lower", shown=("sweep",)),
    Metric("twin_mae_inside", "", "voxel", "twin", **LOWER),
    Metric("twin_mae_outside", "", "voxel", "twin", **LOWER),
    Metric("twin_ssim", "", "voxel", "twin"),
    Metric("twin_psnr", "", "plane", "twin"),
    Metric("twin_perceptual", "", "voxel", "twin", **LOWER),
    Metric("l1_ratio", "", "voxel", "twin"),
)

METRICS: Registry[Metric] = Registry("metric", "metrics", {metric.name: metric for metric in _ROWS})


def register(
    metric: Metric,
) -> Callable[[Callable[[Any, list[Any]], None]], Callable[[Any, list[Any]], None]]:
    """Make a metric known that the decorated function measures, in every evaluation under `strict`.

    The function is given a `metric_frame.Frame` and the results (`CaseResult`) of one method, and
    puts the figure there with `frame.mean`, `frame.ratio`, `frame.rank` or `frame.put`.

    Raises:
        ValueError: for a name that is taken.
    """

    def add(measure: Callable[[Any, list[Any]], None]) -> Callable[[Any, list[Any]], None]:
        METRICS.add(metric.name, replace(metric, measure=measure))
        return measure

    return add


def find(name: str) -> Metric | None:
    """Return the metric of that name, also of ``dice_pooled@otsu`` and ``dice_pooled_difference``.

    None where the table has none.
    """
    return METRICS.get(name.partition("@")[0].removesuffix("_difference"))


def shown_in(name: str, *places: Place) -> bool:
    """Return whether the metric of that name is shown in any of these places."""
    metric = find(name)
    return metric is not None and not set(places).isdisjoint(metric.shown)


def names(*places: Place) -> list[str]:
    """Return the metrics shown in any of these places, in the order of the table."""
    return [metric.name for metric in METRICS.values() if not set(places).isdisjoint(metric.shown)]


def families() -> list[str]:
    """Return the families of metrics in the order of the table."""
    return list(dict.fromkeys(metric.family for metric in METRICS.values()))


def sorting() -> list[str]:
    """Return what tables are sorted by: the first of these that they have."""
    return [
        metric.name
        for metric in sorted(METRICS.values(), key=lambda metric: metric.sorts)
        if metric.sorts
    ]
