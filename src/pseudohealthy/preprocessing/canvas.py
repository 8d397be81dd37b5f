"""The invertible step between native planes and the model's square in [-1, 1].

Geometry: a square of ``side`` native pixels, placed per volume, becomes ``size`` model pixels; what
lies outside the image is the low value (-1). Resampling is a pair of matrices per plane, pixel
centres aligned: antialiased bilinear when the square is larger than the model's (``scale`` < 1),
bilinear when it is at most half as large. In between the square is widened to ``size`` and nothing
is resampled, so a canvas at least as large as the image loses nothing. With ``spacing``, sides
follow from mm per model pixel instead, rows and columns apart, to the nearest whole native pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch

from pseudohealthy.counts import many
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.marks import Choice, Length, Range, Text, either
from pseudohealthy.preprocessing import resampling
from pseudohealthy.preprocessing.foreground import METHODS, foreground
from pseudohealthy.preprocessing.levels import SMALLEST, WINDOWS, levels, window_range, wrong
from pseudohealthy.preprocessing.placement import Fitted, Placement, back, onto
from pseudohealthy.preprocessing.plane_range import SLICES_IN, chosen
from pseudohealthy.settings import check_fields

if TYPE_CHECKING:
    import torch

    from pseudohealthy.io.scan import Scan

NORMALISATIONS = ("window", "percentile", "upper", "deviations", "range", "unit")
PLANES = ("axial", "coronal", "sagittal", "native")
JUDGED = ("all", "slices")
BLANK = 64  # times as large as the image: a square that would leave the image a pixel or two
Window = Annotated[str, Text(f"{either(WINDOWS)}, or centre/width in HU")]
Percent = Annotated[float, Range(0, 100)]
Deviation = Annotated[float, Range(-100, 100)]
Grey = Annotated[float, Range(-1e29, 1e29)]
Millimetres = Annotated[float, Range(0.001, 1000, also=(0,))]
# Change in model units (range 2) from which a value beyond the window has lost all of its excess.
RELEASE = 0.2


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """How scans are brought to the model and back.

    Published settings by name: ``pseudohealthy.preprocessing.published``.

    Args:
        size: Side of the model's square in pixels.
        channels: Of the model's image.
        normalise: "window" (HU ``windows``; a picture, which has no HU, is taken as exported in the
            only window), "percentile" (inside the foreground, per scan and channel), "upper" (0, or
            the lowest value below it, to the upper of ``percentiles``, likewise), "deviations"
            (mean plus these times the standard deviation of the whole scan), "range"
            (``value_range``) or "unit" (values are 0..1 already).
        windows: By name or "centre/width" in HU, one channel each.
        percentiles, deviations, value_range: Of ``normalise``.
        foreground: See ``pseudohealthy.preprocessing.foreground``.
        crop: Fit the square to the foreground's bounding box, per volume, instead of the plane.
        margin: Of ``crop``: share of the box's longer side added on each side.
        strip: The low value outside the foreground.
        plane: How volumes are cut, "native" as stored.
        spacing: mm per model pixel where the scan states its own; the square is then centred on the
            box (crop) or the plane, and its side is that of ``size`` pixels. 0: fit as above.
        slices, slices_in: Planes to train on, see ``plane_range.chosen``.
        step: mm between training planes, see ``training.plane_store.merged``.
        judge: "slices" empties the other planes' foreground and mask, so that no result counts
            them.
        min_foreground: Share of a volume's plane that the foreground must cover for the plane to be
            trained on, and to be part of thresholds and of the case's score. Thinner ones are
            restored and mapped all the same.
    """

    size: Annotated[int, Range(4, 2048)] = 128
    channels: Annotated[int, Range(1, 64)] = 1
    normalise: Annotated[str, Choice(*NORMALISATIONS)] = "percentile"
    windows: Annotated[tuple[Window, ...], Length(0, 64)] = ()
    percentiles: tuple[Percent, Percent] = (0.0, 99.0)
    deviations: tuple[Deviation, Deviation] = (-1.0, 2.0)
    value_range: tuple[Grey, Grey] = (0.0, 255.0)
    foreground: Annotated[str, Choice(*METHODS)] = "auto"
    crop: bool = False
    margin: Annotated[float, Range(0, 1)] = 0.05
    strip: bool = False
    interpolation: Literal["area"] = "area"
    plane: Annotated[str, Choice(*PLANES)] = "axial"
    spacing: Millimetres = 0.0
    slices: Annotated[
        tuple[Annotated[float, Range(-100_000, 100_000)], ...], Length(2, 2, also=(0,))
    ] = ()
    slices_in: Annotated[str, Choice(*SLICES_IN)] = "planes"
    step: Millimetres = 0.0
    judge: Annotated[str, Choice(*JUDGED)] = "all"
    min_foreground: Annotated[float, Range(0, 0.99)] = 0.02

    def __post_init__(self) -> None:
        check_fields(self, "canvas.{}".format)
        for key, gap in (("percentiles", 0.0), ("value_range", SMALLEST), ("deviations", 1e-6)):
            low, high = getattr(self, key)
            if not high - low > gap:
                raise wrong(key, [low, high], "give two rising values")
        if list(self.slices) != sorted(self.slices):
            raise wrong("slices", list(self.slices), "give the first and the last, or none")
        if self.normalise == "window" and len(self.windows) != self.channels:
            raise wrong(
                "windows",
                list(self.windows),
                f"name one window for each of canvas.channels = {self.channels}",
            )
        for window in self.windows:
            window_range(window)

    @property
    def inputs(self) -> int:
        """Channels of an image; windows are cut out of one."""
        return 1 if self.normalise == "window" else self.channels

    def fit(
        self, scan: Scan, mask: np.ndarray | None = None, brain_mask: np.ndarray | None = None
    ) -> Fitted:
        """Bring a scan onto the canvas.

        Args:
            scan: (C, D, H, W).
            mask: (D, H, W) bool on the scan's grid.
            brain_mask: Likewise; it takes the place of the computed foreground.

        Raises:
            Fault: CHANNELS, PLANE, SLICES (exit 2), CONSTANT_IMAGE, RANGE, SPACING.
        """
        voxels = np.asarray(scan.voxels, dtype=np.float32)
        if voxels.shape[0] != self.inputs:
            message = (
                f"the image has {many(voxels.shape[0], 'channel')}, the model takes {self.inputs}"
            )
            raise Fault(
                "CHANNELS",
                message,
                "choose a run trained on such images",
                exit=USAGE,
                case=scan.name,
            )
        self._check_plane(scan)
        inside = (
            foreground(voxels, self.foreground)
            if brain_mask is None
            else np.asarray(brain_mask, dtype=bool)
        )
        low, high = levels(self, scan, voxels, inside)
        top, left, side, across = self._square(inside, scan)
        placement = Placement(
            _shape(voxels), top, left, side, self.size, low, high, across if across != side else 0
        )
        channels = voxels if len(low) == len(voxels) else np.repeat(voxels, len(low), axis=0)
        planes = np.empty((voxels.shape[1], len(low), self.size, self.size), dtype=np.float32)
        for channel, (values, a, b) in enumerate(zip(channels, low, high, strict=True)):
            unit = np.clip((values - np.float32(a)) * np.float32(2 / (b - a)), 0, 2)
            planes[:, channel] = onto(unit * inside if self.strip else unit, placement) - 1
        keep = self._chosen(scan, inside)
        judged = (keep | (self.judge == "all"))[:, None, None]
        return Fitted(
            torch.from_numpy(planes),
            torch.from_numpy(self.fit_mask(inside, placement) & judged),
            placement,
            (
                None
                if mask is None
                else torch.from_numpy(
                    self.fit_mask(np.asarray(mask, dtype=bool), placement) & judged
                )
            ),
            keep,
        )

    def undo(self, planes: torch.Tensor | np.ndarray, placement: Placement) -> np.ndarray:
        """Planes (D, C, S, S) in [-1, 1] as (C, D, H, W) float32 in native units.

        Outside the square lies the low value.
        """
        low, high = (
            np.array(level, dtype=np.float32)[:, None, None, None]
            for level in (placement.low, placement.high)
        )
        stacked = np.moveaxis(np.asarray(planes, dtype=np.float32), 1, 0)
        return back(stacked + 1, placement, resampling.inverse, 0) * ((high - low) / 2) + low

    def undo_map(
        self,
        maps: torch.Tensor | np.ndarray,
        placement: Placement,
        fill: float = 0.0,
        nearest: bool = False,
    ) -> np.ndarray:
        """Maps (D, S, S) on the native grid (D, H, W), never outside the maps' range.

        Args:
            maps: (D, S, S).
            placement: Where the scan lies on the canvas.
            fill: Value outside the square.
            nearest: Take the nearest pixel instead of interpolating.
        """
        return back(
            np.asarray(maps, dtype=np.float32),
            placement,
            resampling.nearest if nearest else resampling.linear,
            fill,
        )

    def healthy(
        self, scan: Scan, restored: torch.Tensor | np.ndarray, fitted: Fitted
    ) -> np.ndarray:
        """The healthy twin (C, D, H, W) in native units: the scan plus the restorer's change.

        An unchanged plane comes back bit for bit, and native detail survives. A value beyond the
        window loses its excess, linearly, as the change grows to a tenth of the window. With
        several windows the narrowest that contains a voxel's value decides for it (the widest where
        none does).

        Args:
            scan: The native scan.
            restored: Its healthy twin on the canvas, (D, C, S, S).
            fitted: The scan on the canvas.
        """
        place = fitted.placement
        change = np.asarray(restored, dtype=np.float32) - np.asarray(fitted.planes)
        change = back(np.moveaxis(change, 1, 0), place, resampling.inverse, 0)
        voxels = np.asarray(scan.voxels, dtype=np.float32)
        low, high = (
            np.array(level, dtype=np.float32)[:, None, None, None]
            for level in (place.low, place.high)
        )
        if len(change) != len(voxels):
            order = np.argsort([b - a for a, b in zip(place.low, place.high, strict=True)])
            choice = np.full(voxels.shape, order[-1])
            for index in order[::-1]:
                choice[(voxels >= place.low[index]) & (voxels <= place.high[index])] = index
            change = np.take_along_axis(change, choice, axis=0)
            low, high = low[choice, 0, 0, 0], high[choice, 0, 0, 0]
        excess = np.clip(np.abs(change) / RELEASE, 0, 1) * (voxels - np.clip(voxels, low, high))
        return np.where(change == 0, voxels, voxels + change * ((high - low) / 2) - excess)

    def judged(self, fitted: Fitted) -> np.ndarray:
        """The planes that results may count, bool (D,)."""
        everything = np.ones(len(fitted.planes), dtype=bool)
        return everything if self.judge == "all" or fitted.chosen is None else fitted.chosen

    def counted(self, fitted: Fitted) -> np.ndarray:
        """The planes that the case's score is over, bool (D,).

        Those of a volume that have `min_foreground`, where none has it those with any; a single
        plane always counts, since whoever stored it chose it.
        """
        share = fitted.foreground.float().mean(dim=(1, 2)).numpy()
        if len(share) == 1:
            return np.ones(1, dtype=bool)
        enough = (share >= self.min_foreground) & (share > 0)
        return enough if enough.any() else share > 0

    @property
    def plane_set(self) -> str:
        """The planes that scores are over, in words for records."""
        return f"planes with at least {100 * self.min_foreground:g} % foreground"

    def unjudged(self, fitted: Fitted) -> list[str]:
        """A warning that says which planes of a volume are judged, where not all are."""
        rows, count = np.flatnonzero(self.judged(fitted)), len(fitted.planes)
        if len(rows) == count:
            return []
        return [
            f"SLICES: planes {rows[0]} to {rows[-1]} of {count} (from 0) are judged, the others"
            " are not"
        ]

    def limits(self) -> list[str]:
        """A note for an evaluation that leaves planes out."""
        if not self.slices or self.judge == "all":
            return []
        first, last = self.slices
        planes = f"planes {first:g} to {last:g} ({self.slices_in})"
        return [f"SLICES: of each volume only {planes} are judged; lesions elsewhere do not count"]

    def windows_a_picture(self, scan: Scan) -> bool:
        """Whether the canvas windows HU but the scan is a picture, which must be windowed already.

        A picture is a PNG, JPEG or TIFF of whole numbers.
        """
        origin = scan.origin
        picture = getattr(origin, "kind", "") == "picture" and np.issubdtype(
            origin.dtype, np.integer
        )
        return self.normalise == "window" and picture

    def fit_mask(self, mask: np.ndarray, placement: Placement) -> np.ndarray:
        """A native mask (D, H, W) on the canvas, (D, S, S) bool, on where at least half is covered.

        A plane's mask that would vanish keeps its most covered pixel.
        """
        covered = onto(np.asarray(mask, dtype=np.float32), placement, coverage=True)
        binary = covered >= 0.5 - 1e-6
        for plane in np.flatnonzero(covered.any(axis=(1, 2)) & ~binary.any(axis=(1, 2))):
            binary[plane].flat[covered[plane].argmax()] = True
        return binary

    def _check_plane(self, scan: Scan) -> None:
        orientation = getattr(scan.origin, "plane", self.plane)
        if orientation != self.plane and scan.shape[1] > 1:
            message = (
                f"the volume was read in {orientation} planes, the model looks at {self.plane} ones"
            )
            raise Fault(
                "PLANE", message, f"read it with plane='{self.plane}'", exit=USAGE, case=scan.name
            )

    def _chosen(self, scan: Scan, inside: np.ndarray) -> np.ndarray:
        volume = len(inside) > 1
        if (
            volume
            and scan.spacing is None
            and (self.spacing or (self.slices and self.slices_in == "mm"))
        ):
            warning = (
                "SPACING: the planes have no known size in mm; they are fitted to the canvas and"
                " all of them used"
            )
            scan.warnings += [warning] * (warning not in scan.warnings)
        try:
            return chosen(
                self.slices, self.slices_in, inside, scan.spacing[0] if scan.spacing else None
            )
        except Fault as fault:
            fault.case = fault.case or scan.name
            raise

    def _square(self, inside: np.ndarray, scan: Scan) -> tuple[int, int, int, int]:
        """Top, left, rows and columns of the native square."""
        _, height, width = inside.shape
        rows, columns = (np.flatnonzero(inside.any(axis=axes)) for axes in ((0, 2), (0, 1)))
        first_row, end_row, first_column, end_column = 0, height, 0, width
        side = max(height, width)
        if self.spacing and scan.spacing is not None:
            if self.crop and rows.size:
                first_row, end_row = rows[0], rows[-1] + 1
                first_column, end_column = columns[0], columns[-1] + 1
            side, across = (
                max(1, round(self.size * self.spacing / native)) for native in scan.spacing[1:]
            )
            if side > BLANK * height or across > BLANK * width:
                pixel_size = " x ".join(f"{native:.3g}" for native in scan.spacing[1:])
                message = (
                    f"{height} x {width} pixels of {pixel_size} mm on a canvas of"
                    f" {self.size * self.spacing:g} mm"
                )
                raise Fault(
                    "SPACING",
                    message,
                    "correct the pixel size, or choose a run for such images",
                    case=scan.name,
                )
            return (
                int(first_row + end_row - side) // 2,
                int(first_column + end_column - across) // 2,
                side,
                across,
            )
        if self.crop and rows.size:
            first_row, end_row = rows[0], rows[-1] + 1
            first_column, end_column = columns[0], columns[-1] + 1
            longer = max(end_row - first_row, end_column - first_column)
            side = min(side, int(np.ceil(longer * (1 + 2 * self.margin))))
        if side <= self.size < 2 * side:
            side = self.size
        return (
            int(first_row + end_row - side) // 2,
            int(first_column + end_column - side) // 2,
            side,
            side,
        )


def _shape(voxels: np.ndarray) -> tuple[int, int, int, int]:
    channels, depth, height, width = voxels.shape
    return channels, depth, height, width
