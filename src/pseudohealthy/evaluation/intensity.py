"""Does the healthy twin keep the intensities of healthy tissue, also under another contrast?

Behrendt et al., cDDPM (2025), section 4.5 and figure 4: intensities of images and of their twins, x
in [0, 1] as it is and as x^c, of healthy planes and of planes with a lesion, in healthy tissue only
(the foreground less the reference). Histograms have 500 bins over the canvas's range, [-1, 1], so
that those of several runs have the same bins. A twin that is the image itself has 0 in every figure
here: read them beside figures of detection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudohealthy.counts import many
from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.data.manifest import Case
from pseudohealthy.detection.detector import Detector
from pseudohealthy.evaluation.compare import OnCanvases, on_canvases
from pseudohealthy.evaluation.measure import readable
from pseudohealthy.metrics import bootstrap
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.preprocessing.placement import Fitted
from pseudohealthy.progress import Progress
from pseudohealthy.restorers.apply import Stack

CONTRASTS = (0.3, 0.7, 1.0, 1.5, 2.0)  # exponents: cDDPM, section 4.5; 1 is the image as it is
FIGURE_4 = (0.5, 1.0, 2.0)  # those of its histograms
KINDS = ("without lesion", "with lesion")
PER_CASE = 2  # planes of each kind
BINS = 500  # cDDPM, section 4.5
SMOOTHING = 0.5  # added to every bin, so that an empty one is rare instead of impossible (Jeffreys)
FIGURES = ("kl", "entropy_difference", "l1")


@dataclass
class Planes:
    """Planes of several cases on one canvas.

    Args:
        images: (C, S, S) each, in [-1, 1].
        foreground: (S, S) bool each.
        lesion: (S, S) bool each, the reference.
        places: position of each in its case, which keys its noise.
        patients: whose plane each is.
        off_middle: how far each is from the middle of its case, in planes.
    """

    images: list[Tensor] = field(default_factory=list)
    foreground: list[Tensor] = field(default_factory=list)
    lesion: list[Tensor] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    off_middle: list[float] = field(default_factory=list)

    def add(self, fitted: Fitted, place: int, patient: str) -> None:
        """Add one plane of a case.

        Args:
            fitted: the case on this canvas.
            place: of the plane.
            patient: whose case it is.
        """
        lesion = torch.zeros_like(fitted.foreground) if fitted.mask is None else fitted.mask
        self.images.append(fitted.planes[place])
        self.foreground.append(fitted.foreground[place])
        self.lesion.append(lesion[place])
        self.places.append(place)
        self.patients.append(patient)
        self.off_middle.append(abs(place - (len(fitted.planes) - 1) / 2))

    @property
    def healthy(self) -> Tensor:
        """Healthy tissue, (N, S, S) bool."""
        return torch.stack(self.foreground) & ~torch.stack(self.lesion)


@dataclass
class Gathered:
    """Planes and cases of a data set on the canvases of several runs.

    Args:
        planes: by kind (`KINDS`) and canvas; the same planes of the same cases on each.
        examples: cases to draw whole.
    """

    planes: dict[str, dict[Canvas, Planes]] = field(default_factory=dict)
    examples: list[OnCanvases] = field(default_factory=list)


@dataclass
class Kept:
    """What one run makes of planes of one kind at one contrast, by patient.

    Args:
        images: counts of intensities in healthy tissue, (patients, `BINS`).
        twins: the same of the twins.
        distance: sum of |image - twin| there, in shares of the range, and number of its values,
            (patients, 2).
    """

    images: np.ndarray
    twins: np.ndarray
    distance: np.ndarray

    def figures(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """Return `FIGURES` under each row of weights (resamples, patients)."""
        images, twins = weight @ self.images, weight @ self.twins
        return {
            "kl": kl(images, twins),
            "entropy_difference": entropy(images) - entropy(twins),
            "l1": bootstrap.ratio_of_sums(weight, *self.distance.T),
        }


def kl(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Kullback-Leibler divergence of the second from the first counts, nats.

    Args:
        first: (..., bins), smoothed by `SMOOTHING`.
        second: likewise.
    """
    bins = first.shape[-1]
    p, q = (
        (c + SMOOTHING) / (c.sum(-1, keepdims=True) + SMOOTHING * bins) for c in (first, second)
    )
    return np.sum(p * np.log(p / q), axis=-1)


def entropy(counts: np.ndarray) -> np.ndarray:
    """Return the entropy of the shares of counts (..., bins), nats."""
    shares = counts / counts.sum(-1, keepdims=True)
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=-1)


def with_contrast(planes: Tensor, factor: float, where: Tensor | None = None) -> Tensor:
    """Change the contrast of planes: x -> x^factor, x in [0, 1].

    Args:
        planes: (N, C, S, S) in [-1, 1].
        factor: the exponent.
        where: (N, S, S) bool, everywhere by default.
    """
    changed = 2 * ((planes.clamp(-1, 1) + 1) / 2) ** factor - 1
    return changed if where is None else torch.where(where[:, None], changed, planes)


def twins_of(
    detector: Detector, images: Tensor, foreground: Tensor, places: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return twins (N, C, S, S) and maps (N, S, S) of planes restored one by one.

    The same place is the same noise.
    """
    alone = [
        Stack.whole(images[i : i + 1], foreground[i : i + 1], [place])
        for i, place in enumerate(places)
    ]
    applied = detector.apply(alone)
    return torch.cat([result.healthy for result in applied]), torch.cat(
        [result.maps for result in applied]
    )


def gathered(
    cases: list[Case], detectors: Sequence[Detector], case_ids: Sequence[str], notes: list[str]
) -> Gathered:
    """Gather up to `PER_CASE` planes of each kind of every case, on the canvas of every run.

    Planes are those that count for a score on the first canvas, evenly spread. A plane is without
    lesion where its reference says so, or its case is healthy; planes without either, and those
    with voxels that do not count, belong to no kind.

    Args:
        cases: of one data set.
        detectors: the runs.
        case_ids: cases that are kept whole.
        notes: what could not be read is added here.
    """
    result = Gathered()
    canvases = list(dict.fromkeys(detector.canvas for detector in detectors))
    with Progress("choosing planes", len(cases)) as bar:
        for item in on_canvases(readable(cases, detectors[0], notes, bar), canvases, notes, bar):
            case = item.reading.case
            for kind, places in of_kinds(item, canvases[0]):
                for canvas in canvases:
                    planes = result.planes.setdefault(kind, {}).setdefault(canvas, Planes())
                    for place in places:
                        planes.add(item.by_canvas[canvas], place, case.patient_id)
            if case.case_id in case_ids:
                result.examples.append(item)
            bar.advance()
    return result


def of_kinds(item: OnCanvases, canvas: Canvas) -> Iterator[tuple[str, list[int]]]:
    """Yield (kind, planes) of a case."""
    truth, fitted, ignored = item.reading.truth, item.by_canvas[canvas], item.reading.ignored
    if truth is None and item.reading.case.label != HEALTHY:
        return
    marked = np.zeros(len(fitted.planes), bool) if truth is None else truth.any((1, 2))
    for kind, of_kind in zip(KINDS, (~marked, marked), strict=True):
        if ignored is not None:
            of_kind = of_kind & ~ignored.any((1, 2))
        rows = np.flatnonzero(canvas.counted(fitted) & of_kind)
        if len(rows):
            # Not the outermost planes.
            ends = np.linspace(0, len(rows) - 1, min(PER_CASE, len(rows)) + 2)[1:-1]
            yield kind, sorted({int(rows[round(end)]) for end in ends})


def kept_by(detector: Detector, planes: Planes, factor: float) -> Kept:
    """Sum up counts and distances of one run at one contrast, changed in the whole plane."""
    images = with_contrast(torch.stack(planes.images), factor)
    twins, _ = twins_of(detector, images, torch.stack(planes.foreground), planes.places)
    names, healthy = sorted(set(planes.patients)), planes.healthy
    sums = Kept(
        np.zeros((len(names), BINS)), np.zeros((len(names), BINS)), np.zeros((len(names), 2))
    )
    for image, twin, inside, patient in zip(images, twins, healthy, planes.patients, strict=True):
        row = names.index(patient)
        sums.images[row] += counts(image.mean(0)[inside])
        sums.twins[row] += counts(twin.mean(0)[inside])
        sums.distance[row] += [
            float((image - twin).abs().mean(0)[inside].sum()) / 2,
            int(inside.sum()),
        ]
    return sums


def counts(values: Tensor) -> np.ndarray:
    """Count values (N,) in `BINS` bins over [-1, 1]; what lies beyond counts in the outermost."""
    return np.histogram(values.clamp(-1, 1).numpy(), BINS, (-1, 1))[0].astype(np.float64)


Histograms = dict[tuple[str, str, float], Kept]  # by kind, run and contrast


def intensities(
    runs: Mapping[str, Detector], collected: Gathered
) -> tuple[list[dict[str, Any]], Histograms]:
    """Measure `FIGURES` by kind of plane, contrast and run, with 95 % intervals over patients.

    Returns:
        One row each, with the same figures of the run less the first run, paired by patient; and
        the counts behind them.
    """
    rows: list[dict[str, Any]] = []
    histograms: Histograms = {}
    conditions = [
        (kind, factor) for kind in KINDS if kind in collected.planes for factor in FIGURE_4
    ]
    with Progress("contrasts", len(conditions) * len(runs)) as bar:
        for kind, factor in conditions:
            exact: dict[str, dict[str, np.ndarray]] = {}
            resampled: dict[str, dict[str, np.ndarray]] = {}
            for name, detector in runs.items():
                planes = collected.planes[kind][detector.canvas]
                sums = histograms[kind, name, factor] = kept_by(detector, planes, factor)
                patients = len(sums.distance)
                exact[name], resampled[name] = (
                    sums.figures(np.ones((1, patients))),
                    sums.figures(bootstrap.weights(patients)),
                )
                row = {
                    "planes": kind,
                    "contrast": factor,
                    "run": name,
                    "method": detector.restorer.name,
                    "n_planes": len(planes.images),
                    "n_patients": patients,
                }
                first_run = next(iter(runs))
                for figure in FIGURES:
                    row |= with_ends(figure, exact[name][figure], resampled[name][figure], patients)
                for figure in FIGURES if name != first_run else ():
                    value, spread = (
                        part[name][figure] - part[first_run][figure] for part in (exact, resampled)
                    )
                    row |= with_ends(f"{figure}_less_{first_run}", value, spread, patients)
                rows.append(row)
                bar.advance()
    return rows, histograms


def with_ends(
    name: str, value: np.ndarray, resampled: np.ndarray, patients: int
) -> dict[str, float | None]:
    """Return a figure (1,) and the ends of its interval, which fewer than two patients do not
    have."""
    low, high = (bootstrap.percentile(resampled) if patients > 1 else None) or (None, None)
    return {name: float(value[0]), f"{name}_low": low, f"{name}_high": high}


def entries(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows as ``benchmarks/real_data/rows.py study`` takes them."""

    def ends(row: Mapping[str, Any], figure: str) -> list[float | None]:
        return (
            [row[figure], row[f"{figure}_low"], row[f"{figure}_high"]]
            if figure in row
            else [0.0, 0.0, 0.0]
        )

    return [
        {
            "what": f"{row['data']}, {row['planes']}, contrast {row['contrast']:g}, {row['run']}",
            **{figure: ends(row, figure) for figure in FIGURES},
            "less": {figure: ends(row, f"{figure}_less_{rows[0]['run']}") for figure in FIGURES},
        }
        for row in rows
    ]


def markdown(rows: Sequence[Mapping[str, Any]], data: str) -> str:
    """Return the rows as a table of Markdown, with a line that says what it is of."""

    def cell(row: Mapping[str, Any], figure: str, sign: str = "") -> str:
        if row.get(figure) is None:
            return ""
        ends = row[f"{figure}_low"], row[f"{figure}_high"]
        return f"{row[figure]:{sign}.3f}" + (
            "" if None in ends else f" [{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]"
        )

    first_run = rows[0]["run"]
    several = len({row["run"] for row in rows}) > 1
    heads = ["planes", "contrast", "run", "KL divergence, nats", "l1, share of the range"]
    heads += [f"KL, less {first_run}", f"l1, less {first_run}"] if several else []
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [
            row["planes"],
            f"{row['contrast']:g}",
            row["run"],
            cell(row, "kl"),
            cell(row, "l1"),
        ]
        cells += (
            [cell(row, f"{figure}_less_{first_run}", "+") for figure in ("kl", "l1")]
            if several
            else []
        )
        lines.append(f"| {' | '.join(text.replace('|', '/') for text in cells)} |")
    sizes = {
        row["planes"]: (
            f"{many(row['n_planes'], 'plane')} {row['planes']} of"
            f" {many(row['n_patients'], 'patient')}"
        )
        for row in rows
    }
    caption = (
        f"Test split of `{data}`, healthy tissue: {'; '.join(sizes.values())}. Contrast c: the"
        " image is x^c, x in [0, 1]; "
    )
    return (
        "\n".join(lines)
        + f"\n\n{caption}[95 % interval over patients]. A twin equal to its image has 0.\n"
    )
