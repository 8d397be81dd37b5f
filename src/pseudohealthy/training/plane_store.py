"""Planes of a manifest, cut once and memory-mapped: what a training loop reads batch by batch.

Planes to train on are kept as float16. Those of validation are float32, bit for bit what `detect`
makes of the same file: their scores are stored, and compared with its.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pseudohealthy.counts import many
from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.errors import BAD_OUTPUT, NO_INPUT, USAGE, Fault
from pseudohealthy.io import read_image, read_mask
from pseudohealthy.io.atomic import write_json, write_text
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.preprocessing.placement import Fitted
from pseudohealthy.preprocessing.resampling import triangle

if TYPE_CHECKING:
    import pandas as pd
    import torch

COLUMNS = ("row", "case_id", "patient_id", "split", "plane", "label")
EXACT = "val"  # the split whose planes are kept as they are
VERSION = 4  # of what lies in the folder: older caches are rebuilt


class PlaneStore:
    """The planes of a manifest on one canvas.

    Rows are positions in ``index`` (columns row, case_id, patient_id, split, plane, label);
    ``faults`` lists the cases that could not be read, one line each.
    """

    def __init__(self, folder: Path):
        folder = Path(folder)
        self.folder = folder
        record = json.loads((folder / "key.json").read_text(encoding="utf-8"))
        self.key: str = record["key"]
        self.faults: list[str] = record["faults"]
        self.index: pd.DataFrame = pd.read_csv(
            folder / "index.csv",
            dtype={"label": "Int64"} | dict.fromkeys(("case_id", "patient_id", "split"), str),
            keep_default_na=False,
            na_values={"label": [""]},
        )
        self._planes = np.load(folder / "planes.npy", mmap_mode="r")
        exact = folder / "exact.npy"
        self._exact = np.load(exact, mmap_mode="r") if exact.is_file() else None
        val = (self.index["split"] == EXACT).to_numpy()
        if val.any() != (self._exact is not None):
            raise ValueError("exact.npy does not belong to this index")
        # The place of each row in its file.
        self._in = np.where(val, np.cumsum(val), np.cumsum(~val)) - 1
        self._val = val
        self._foreground = np.load(folder / "foreground.npy", mmap_mode="r")
        masks = folder / "masks.npy"
        self._masks = np.load(masks, mmap_mode="r") if masks.is_file() else None

    @classmethod
    def open(cls, folder: Path) -> PlaneStore:
        """A cache written earlier.

        Raises:
            Fault: NO_CACHE (exit 3) where there is none, or a damaged one.
        """
        folder = Path(folder)
        if not (folder / "key.json").is_file():
            raise Fault(
                "NO_CACHE", f"{folder.name} holds no planes", "run prepare or train", exit=NO_INPUT
            )
        try:
            return cls(folder)
        except (OSError, ValueError, LookupError, TypeError, EOFError, RecursionError):
            message = f"the planes in {folder.name} are incomplete or damaged"
            raise Fault(
                "NO_CACHE", message, "remove that folder; it is made again", exit=NO_INPUT
            ) from None

    def __len__(self) -> int:
        return len(self.index)

    def images(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Images of some rows, (B, C, S, S) float32 in [-1, 1]."""
        rows = np.asarray(rows)
        planes = np.empty((len(rows), *self._planes.shape[1:]), np.float32)
        val = self._val[rows]
        planes[~val] = self._planes[self._in[rows[~val]]]
        if self._exact is not None:
            planes[val] = self._exact[self._in[rows[val]]]
        return torch.from_numpy(planes)

    def foreground(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Foreground of some rows, (B, S, S) bool."""
        return torch.from_numpy(self._foreground[np.asarray(rows)].astype(bool))

    def masks(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor | None:
        """Masks of some rows, (B, S, S) bool, empty for planes without; None without any mask."""
        return (
            None
            if self._masks is None
            else torch.from_numpy(self._masks[np.asarray(rows)].astype(bool))
        )

    def select(self, split: str | None = None, label: int | None = None) -> np.ndarray:
        """Rows (int64) of a split and of a plane label; None takes all."""
        keep = np.ones(len(self.index), dtype=bool)
        if split is not None:
            keep &= (self.index["split"] == split).to_numpy()
        if label is not None:
            keep &= (self.index["label"] == label).fillna(False).to_numpy(dtype=bool)
        return np.flatnonzero(keep)


def build_cache(
    manifest: Manifest,
    canvas: Canvas,
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> PlaneStore:
    """Write the planes of a manifest into a folder, or open them when nothing has changed.

    Of a volume, the planes that count (`Canvas.counted`) are taken: in training
    those of ``canvas.slices`` alone, merged to ``canvas.step``. ``plane`` is the position in the
    volume. A plane's label: that of its mask if the case is not healthy and has one, else of the
    column ``plane_labels``, else of the case. A case that cannot be read is noted in ``faults``.

    Args:
        progress: Called with the cases done and their total.

    Raises:
        Fault: NO_INPUT when no case gives a plane (exit 3, or 2 where the canvas' settings refuse
            every one); OUTPUT (exit 6).
    """
    folder = Path(folder)
    key = _key(manifest, canvas)
    key_file = folder / "key.json"
    if key_file.is_file():
        with suppress(Fault):  # a damaged cache is written again
            store = PlaneStore.open(folder)
            if store.key == key:
                return store
    folder.mkdir(parents=True, exist_ok=True)
    key_file.unlink(
        missing_ok=True
    )  # from here on the folder is not a cache until key.json is back
    faults, rows, any_mask, any_exact = [], io.StringIO(), False, False
    exits: set[int] = set()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(COLUMNS)
    row, side = 0, (canvas.size, canvas.size)
    try:
        with (
            _growing(folder / "planes.npy", (canvas.channels, *side), np.float16) as planes,
            _growing(folder / "exact.npy", (canvas.channels, *side), np.float32) as exact,
            _growing(folder / "foreground.npy", side, np.uint8) as foregrounds,
            _growing(folder / "masks.npy", side, np.uint8) as masks,
        ):
            for number, case in enumerate(manifest):
                if progress:
                    progress(number, len(manifest))
                try:
                    fitted, labels, numbers = _fit(case, canvas)
                except Fault as fault:
                    fault.case = fault.case or case.case_id
                    faults.append(str(fault))
                    exits.add(fault.exit)
                    continue
                counted = np.flatnonzero(canvas.counted(fitted))
                (exact if case.split == EXACT else planes)(fitted.planes.numpy()[counted])
                any_exact |= case.split == EXACT and len(counted) > 0
                foregrounds(fitted.foreground.numpy()[counted])
                masks(
                    np.zeros((len(counted), *side))
                    if fitted.mask is None
                    else fitted.mask.numpy()[counted]
                )
                any_mask |= fitted.mask is not None
                for index in counted.tolist():
                    label = "" if labels[index] is None else labels[index]
                    table.writerow(
                        [row, case.case_id, case.patient_id, case.split, numbers[index], label]
                    )
                    row += 1
    except OSError as error:
        raise Fault(
            "OUTPUT",
            f"cannot write the planes: {error.strerror or type(error).__name__}",
            "free some space or choose another folder",
            exit=BAD_OUTPUT,
        ) from error
    if row == 0:
        raise Fault(
            "NO_INPUT",
            f"none of {many(len(manifest), 'case')} gave a plane"
            + (f": {faults[0]}" if faults else ""),
            "see the messages above",
            exit=USAGE if exits == {USAGE} else NO_INPUT,
        )
    for name, nonempty in (("masks.npy", any_mask), ("exact.npy", any_exact)):
        if not nonempty:
            (folder / name).unlink()
    write_text(folder / "index.csv", rows.getvalue())
    write_json(
        key_file,
        {"key": key, "manifest": manifest.sha256, "canvas": asdict(canvas), "faults": faults},
    )
    if progress:
        progress(len(manifest), len(manifest))
    return PlaneStore(folder)


def _fit(case: Case, canvas: Canvas) -> tuple[Fitted, list[int | None], np.ndarray]:
    scan = read_image(case.image, case.root, plane=canvas.plane)
    ignored_values = case.values("mask_ignore") + case.values("mask_background")
    mask = read_mask(case.mask, case.root, scan, ignore=ignored_values) if case.mask else None
    brain = read_mask(case.brain_mask, case.root, scan) if case.brain_mask else None
    labels: list[int | None] = [case.label] * scan.voxels.shape[1]
    if mask is not None and case.label != HEALTHY:
        labels = mask.any(axis=(1, 2)).astype(int).tolist()
    elif (stated := plane_labels(case, len(labels))) is not None:
        labels = stated
    fitted = canvas.fit(scan, mask, brain)
    training = case.split == "train"
    if not training:  # thresholds are learnt on planes as detection sees them
        fitted.chosen = canvas.judged(fitted)
    spacing = scan.spacing[0] if scan.spacing else None
    return merged(fitted, labels, canvas.step if training else 0.0, spacing)


def plane_labels(case: Case, count: int) -> list[int | None] | None:
    """The labels of a case's planes, from the manifest's column ``plane_labels``.

    Args:
        case: The column holds "0|0|1", in the order planes are read; blank is unknown.
        count: Number of planes.

    Returns:
        None where the case has no such labels.

    Raises:
        Fault: PLANE_LABELS (exit 2).
    """
    text = case.extra.get("plane_labels", "")
    if not text:
        return None
    words = text.split("|")
    if len(words) != count or not set(words) <= {"", "0", "1"}:
        raise Fault(
            "PLANE_LABELS",
            f"{many(len(words), 'plane label')} for {many(count, 'plane')}",
            "one of 0, 1 or blank for each plane, joined by |",
            exit=USAGE,
        )
    return [int(word) if word else None for word in words]


def _key(manifest: Manifest, canvas: Canvas) -> str:
    """Hash of everything the planes depend on, the files' sizes and times included."""
    files = dict.fromkeys(path for case in manifest for path in case.files())
    facts = [
        (path.name, info.st_size, info.st_mtime_ns)
        for path in files
        if path.is_file() and (info := path.stat())
    ]
    parts = [VERSION, manifest.sha256, asdict(canvas), facts]
    for column in ("plane_labels", "mask_ignore", "mask_background"):
        if any(cells := [case.extra.get(column, "") for case in manifest]):
            parts.append([column, cells])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@contextmanager
def _growing(
    path: Path, shape: tuple[int, ...], dtype: type
) -> Iterator[Callable[[np.ndarray], None]]:
    """An .npy file that grows along its first axis and gets its final name when complete."""
    count, tmp = 0, path.with_name(f".tmp-{os.getpid()}-{path.name}")

    def header() -> dict[str, object]:  # numpy leaves room in it for the first axis to grow
        return {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": (count, *shape),
        }

    try:
        with tmp.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header())

            def append(block: np.ndarray) -> None:
                nonlocal count
                stream.write(np.ascontiguousarray(block, dtype=dtype).tobytes())
                count += len(block)

            yield append
            stream.seek(0)
            np.lib.format.write_array_header_1_0(stream, header())
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


def merged(
    fitted: Fitted, labels: list[int | None], step: float, spacing: float | None
) -> tuple[Fitted, list[int | None], np.ndarray]:
    """The chosen planes for training, their labels and their positions in the volume.

    Planes closer than ``step`` are merged by antialiased linear weights, as in-plane; thicker ones
    stay as acquired, since interpolation would invent what lies between. A merged plane is
    anomalous, and its mask is on, where any of its parts is.

    Args:
        fitted: The volume on the canvas.
        labels: One of each plane.
        step: Distance of merged planes in mm; 0 merges none.
        spacing: Distance of the planes in mm, or None.
    """
    rows = np.arange(len(fitted.planes)) if fitted.chosen is None else np.flatnonzero(fitted.chosen)
    count = round(len(rows) * spacing / step) if step and spacing else len(rows)
    mask = None if fitted.mask is None else fitted.mask[rows]
    planes = fitted.planes[rows]
    foreground = fitted.foreground[rows]
    labels = [labels[row] for row in rows]
    if not 0 < count < len(rows):
        return Fitted(planes, foreground, fitted.placement, mask), labels, rows
    weights = triangle(len(rows), count).astype(np.float32)

    def weighted(values: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.tensordot(weights, values.float().numpy(), axes=1))

    parts = [[labels[i] for i in np.flatnonzero(row > 1e-6)] for row in weights]
    return (
        Fitted(
            weighted(planes),
            weighted(foreground) >= 0.5,
            fitted.placement,
            None if mask is None else weighted(mask) > 1e-6,
        ),
        [1 if 1 in part_labels else None if None in part_labels else 0 for part_labels in parts],
        rows[weights.argmax(axis=1)],
    )


def spread_out(rows: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` rows, evenly spread, always the same."""
    return (
        rows
        if len(rows) <= limit
        else rows[np.linspace(0, len(rows) - 1, limit).round().astype(int)]
    )


def chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[i : i + size] for i in range(0, len(rows), size)]


PLANES = 20_000  # healthy planes that the statistics look at, evenly spread


def healthy_statistics(store: PlaneStore) -> tuple[Tensor, Tensor]:
    """Mean and spread (C, S, S) of healthy training planes in [-1, 1]."""
    rows = spread_out(store.select("train", HEALTHY), PLANES)
    total = square = torch.zeros(())
    for part in chunks(rows, 256):
        images = store.images(part).double()
        total, square = total + images.sum(0), square + images.square().sum(0)
    mean = total / len(rows)
    return mean.float(), (square / len(rows) - mean.square()).clamp(min=0).sqrt().float()
