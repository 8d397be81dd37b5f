"""One scan, one channel of a manifest or one mask, read in its format."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy.counts import many
from pseudohealthy.errors import REFUSED, USAGE, Fault
from pseudohealthy.formats import FORMATS
from pseudohealthy.io.discover import Source, discover, kind_of, split_item
from pseudohealthy.io.held import held
from pseudohealthy.io.mask import marked
from pseudohealthy.io.names import HELD, natural, safe, unname, unnamed
from pseudohealthy.io.objects import scan_of
from pseudohealthy.io.scan import Scan, describe_grid, of_a_patient, same_grid, usable
from pseudohealthy.io.source import Origin
from pseudohealthy.lazy import lazy

MOST_VOXELS = 512_000_000  # of one scan


def read(
    source: Source | Path | str | Any,
    *,
    plane: str = "axial",
    max_voxels: int = MOST_VOXELS,
    assume_spacing: float | None = None,
) -> Scan:
    """One scan, with contrast and a usable size.

    Args:
        source: what `discover` found, a path, or an object as `io.objects.scan_of` takes it.
        plane: see `io.turn.PLANES`.

    Raises Fault: what the format's reader raises, SEVERAL (exit 2) for a path that holds more than
    one scan, TOO_SMALL, CONSTANT_IMAGE.
    """
    if not isinstance(source, (Source, str, os.PathLike)):
        scan = scan_of(source, plane=plane)
        _require_placed(scan)
        return usable(scan)
    source = source if isinstance(source, Source) else only(Path(source))
    try:
        return usable(load_source(source, plane, max_voxels, assume_spacing=assume_spacing))
    except Fault as fault:
        fault.case = fault.case or source.case_id
        raise


def read_image(spec: str, root: Path, **kw: Any) -> Scan:
    """The scan a manifest's `image` cell names: channels separated by "|", each a path below
    `root`, an item such as "file.gz#12", or a glob of 2-D files, naturally sorted, as planes.
    Raises Fault GRID_MISMATCH, PATH_ESCAPE (exit 8).
    """
    return usable(_joined([_item(part, root, False, **kw) for part in spec.split("|")]))


def _joined(scans: list[Scan]) -> Scan:
    """Scans of one grid as the channels of the first. Fault GRID_MISMATCH."""
    first = scans[0]
    for other in scans[1:]:
        _require_same_grid(first, other.shape[1:], other.affine, "channels")
        first.warnings += [w for w in other.warnings if w not in first.warnings]
    if len(scans) > 1:
        first.voxels = np.concatenate([s.voxels for s in scans])
    return first


def read_mask(
    spec: str, root: Path, scan: Scan, *, ignore: Sequence[int] = (), resample: bool = False
) -> np.ndarray:
    """The mask a manifest cell names as bool (D, H, W) on the scan's grid, whatever axis order it
    is stored in.

    0 is background, everything else lesion except the labels in `ignore`. Accepted are {0, one
    value}, small integer labels, and shades cut at half; the latter two are noted in
    ``scan.warnings``, see `io.mask`. resample: a mask on another grid takes the value of its
    nearest voxel in mm, and that is noted. Raises Fault GRID_MISMATCH, MASK_VALUES, MASK_OVERLAY,
    MASK_INVERTED.
    """
    mask = _item(spec, root, True, plane="native" if scan.affine is not None else "axial")
    if mask.shape[0] > 1:
        raise Fault(
            "GRID_MISMATCH", f"the mask has {many(mask.shape[0], 'channel')}", "give one mask"
        )
    values = mask.voxels[0]
    for text in (w for w in mask.warnings if w.startswith("MASK_") and w not in scan.warnings):
        scan.warnings.append(text)
    if scan.affine is not None and mask.affine is not None:
        aligned = _onto(values, mask.affine, scan)
        if aligned is None and resample:
            aligned = _nearest(values, mask.affine, scan)
        if aligned is None:
            _mismatch(scan, values.shape, mask.affine, "mask")
        values = aligned
    _require_same_grid(scan, values.shape, scan.affine, "mask")
    return marked(values, scan, ignore, getattr(mask.origin, "lossy", False))


def only(path: Path | str) -> Source:
    sources, _ = discover([path])
    if len(sources) > 1:
        names = ", ".join(s.case_id for s in sources[:5]) + (", ..." if len(sources) > 5 else "")
        what = "INPUT" if any(s.origin for s in sources) else Path(path).name
        cure = f"name one of them, as {what}#0 to #{len(sources) - 1}"
        raise Fault(
            "SEVERAL", f"{what} holds {many(len(sources), 'scan')}: {names}", cure, exit=USAGE
        )
    return sources[0]


def load_source(
    source: Source,
    plane: str,
    max_voxels: int,
    mask: bool = False,
    assume_spacing: float | None = None,
) -> Scan:
    """The scan of a source. Nothing that is said about a DICOM series named by its UID names its
    files."""
    try:
        scan = _loaded(source, plane, max_voxels, mask, assume_spacing)
    except Exception as error:
        if source.origin:
            unname(error, source.paths)
        raise
    if source.origin:
        scan.warnings = [unnamed(text, source.paths) for text in scan.warnings]
        scan.unnamed = source.paths
    return scan


def _loaded(
    source: Source, plane: str, max_voxels: int, mask: bool, assume_spacing: float | None
) -> Scan:
    path = source.paths[0]
    try:
        if source.kind == "channels":
            parts = [replace(source, kind=kind_of(one), paths=(one,)) for one in source.paths]
            scan = _joined([_loaded(one, plane, max_voxels, mask, assume_spacing) for one in parts])
        else:
            # Of a file of another kind the reader of pictures says why it is none
            kind = source.kind if source.kind in FORMATS else "raster"
            how: dict[str, Any] = {"plane": plane, "max_voxels": max_voxels, "mask": mask}
            scan = lazy(FORMATS[kind].reader)(source, **how, assume_spacing=assume_spacing)
            scan.kind = kind
    except OSError as error:
        raise Fault(
            "UNREADABLE", f"{path.name}: {error.strerror or error}", "check the file"
        ) from None
    scan.name = source.case_id
    _require_placed(scan)
    if source.note:
        scan.warnings.insert(0, source.note)
    return scan


def _require_placed(scan: Scan) -> None:
    """Fault BAD_SPACING for voxel sizes and positions that are no patient's: sums and volumes of
    them would overflow."""
    if scan.affine is None:
        return
    with np.errstate(over="ignore", invalid="ignore"):
        spacing = np.linalg.norm(scan.affine[:3, :3], axis=0)
        if (
            not (np.abs(scan.affine) < 1e9).all()
            or spacing.min() < 1e-6
            or not np.linalg.det(scan.affine[:3, :3])
        ):
            size = " x ".join(f"{n:.3g}" for n in spacing)
            first = ", ".join(f"{n:.3g}" for n in scan.affine[:3, 3])
            raise Fault(
                "BAD_SPACING", f"voxels of {size} mm, the first at ({first})", "repair the header"
            )
    if not of_a_patient(scan.shape[1:], scan.affine):
        size = " x ".join(f"{n:.3g}" for n in spacing)
        scan.warnings.append(
            f"UNITS: voxels of {size} mm are no patient's; volumes in ml are left out"
        )


def _item(
    part: str, root: Path, mask: bool, *, plane: str = "axial", max_voxels: int = MOST_VOXELS
) -> Scan:
    """One channel or mask of a manifest cell."""
    if part.startswith(HELD):
        return held(part, "native" if mask else plane)
    full = os.path.normpath(os.path.join(root, part.strip()))
    if not Path(full).is_relative_to(os.path.normpath(root)):
        raise Fault(
            "PATH_ESCAPE",
            "a path of the manifest leaves its folder",
            "keep files below it",
            exit=REFUSED,
        )
    path, item = split_item(full)
    if path.exists():
        if path.is_dir() or kind_of(path) in ("dicom", "zip"):
            return load_source(
                only(path if item is None else f"{path}#{item}"), plane, max_voxels, mask
            )
        name = safe(
            path.name.split(".")[0] if item is None else f"{path.name.split('.')[0]}-{item}"
        )
        kind = kind_of(path)
        if not kind:
            raise Fault(
                "NO_INPUT",
                f"{path.name} is not an image this program reads",
                "give NIfTI, DICOM or PNG",
            )
        return load_source(Source(name, kind, (path,), item=item), plane, max_voxels, mask)
    pattern, item = (full, None) if item is None else (str(path), item)
    files = sorted(glob.glob(pattern), key=natural)
    if not files:
        raise Fault(
            "NOT_FOUND", f"there is no {Path(part).name}", "check the manifest and its folder"
        )
    planes = [load_source(_single(Path(file), item), plane, max_voxels, mask) for file in files]
    return _stack(planes, Path(files[0]), max_voxels)


def _single(path: Path, item: int | None) -> Source:
    """One file of a stack."""
    kind = kind_of(path)
    origin = Origin(path.name, path.parent, "") if kind == "dicom" else None
    return Source(path.stem, kind, (path,), item=item, origin=origin)


def _stack(planes: list[Scan], first: Path, max_voxels: int) -> Scan:
    if len({p.shape for p in planes}) > 1 or planes[0].shape[1] > 1:
        sizes = ", ".join(sorted({f"{p.shape[2]} x {p.shape[3]}" for p in planes})[:4])
        raise Fault(
            "GRID_MISMATCH",
            f"a stack of planes of different sizes ({sizes})",
            "list files of one size",
        )
    scan = planes[0]
    scan.voxels = np.concatenate([p.voxels for p in planes], axis=1)
    scan.name, scan.affine = safe(first.parent.name or first.stem), None
    scan.warnings = list(dict.fromkeys(w for p in planes for w in p.warnings))
    if scan.kind != "raster":
        scan.kind = "raster"
        scan.origin = None
    with contextlib.suppress(AttributeError):
        scan.origin.shape = scan.shape[1:]
    return scan


def _onto(values: np.ndarray, affine: np.ndarray, scan: Scan) -> np.ndarray | None:
    """`values` (index -> mm by `affine`) on the scan's grid if that needs only a permutation and
    flips, else None."""
    assert scan.affine is not None
    change = np.linalg.inv(affine) @ scan.affine  # scan index -> mask index
    axes = np.abs(change[:3, :3]).argmax(axis=0)
    if sorted(axes) != [0, 1, 2]:
        return None
    signs = np.sign(change[axes, range(3)])
    out = values.transpose(axes)
    out = np.flip(out, tuple(a for a in range(3) if signs[a] < 0))
    if out.shape != scan.shape[1:]:
        return None
    exact = np.zeros((4, 4))
    exact[axes, range(3)] = signs
    exact[3, 3] = 1
    for a in range(3):
        exact[axes[a], 3] = 0 if signs[a] > 0 else out.shape[a] - 1
    return out if same_grid(out.shape, scan.affine, affine @ exact) else None


def _nearest(values: np.ndarray, affine: np.ndarray, scan: Scan) -> np.ndarray | None:
    """`values` at the voxel nearest to each of the scan's; 0 outside. None where nothing that is
    marked would be left."""
    from scipy import ndimage

    assert scan.affine is not None
    change = np.linalg.inv(affine) @ scan.affine  # scan index -> mask index
    found = ndimage.affine_transform(
        values, change[:3, :3], change[:3, 3], output_shape=scan.shape[1:], order=0, mode="constant"
    )
    if values.any() and not found.any():
        return None
    lost = 1 - (found > 0).sum() * abs(np.linalg.det(scan.affine)) / max(
        (values > 0).sum(), 1
    ) / abs(np.linalg.det(affine))
    grids = (
        f"{describe_grid(*_lying_as(scan, values.shape, affine))} onto"
        f" {describe_grid(scan.shape[1:], scan.affine)}"
    )
    changed = round(-100 * lost) or 0  # never -0
    scan.warnings.append(
        f"MASK_RESAMPLED to the nearest voxel: {grids}; its marked volume changed by {changed:+d} %"
    )
    return found


def _require_same_grid(
    scan: Scan, shape: tuple[int, ...], affine: np.ndarray | None, what: str
) -> None:
    one, other = scan.affine, affine
    apart = one is not None and other is not None and not same_grid(shape, one, other)
    if shape != scan.shape[1:] or apart:
        _mismatch(scan, shape, affine, what)


def _mismatch(scan: Scan, shape: tuple[int, ...], affine: np.ndarray | None, what: str) -> None:
    if scan.affine is not None and affine is not None:
        shape, affine = _lying_as(scan, shape, affine)
    grids = f"{describe_grid(scan.shape[1:], scan.affine)} against {describe_grid(shape, affine)}"
    raise Fault(
        "GRID_MISMATCH",
        f"image and {what} lie on different grids: {grids}",
        "resample one onto the other",
    )


def _lying_as(
    scan: Scan, shape: Sequence[int], affine: np.ndarray
) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of the same grid with its axes in the order and direction of the scan's, so
    that a message shows what really differs; as they are where no axes answer each other."""
    assert scan.affine is not None
    change = np.linalg.inv(affine) @ scan.affine
    axes = np.abs(change[:3, :3]).argmax(axis=0)
    if sorted(axes) != [0, 1, 2]:
        return tuple(shape), affine
    turned = np.eye(4)
    turned[:3, :3] = 0
    for a, axis in enumerate(axes):
        forward = change[axis, a] > 0
        turned[axis, a], turned[axis, 3] = (1, 0) if forward else (-1, shape[axis] - 1)
    return tuple(shape[axis] for axis in axes), affine @ turned
