"""Which pixels show the patient, for percentiles, crops and evaluation masks.

"auto": brighter than a small share of the image's robust range, its large components, holes filled,
per volume; made for MR with and without skull, digits and radiographs. "head-ct": above -200 HU,
largest object, filled (values in HU). "nonzero": any channel differs from 0. "all": everything.
"head-png": as "head-ct" in windowed pictures. "brain-ct": inside of the skull, in HU or in windowed
pictures. "brain-mr": a rough brain on MR with skull or without, see ``_brain_mr``.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

METHODS = ("auto", "nonzero", "all", "head-ct", "head-png", "brain-ct", "brain-mr")
# Of the way from the background to the bright tissue (99th percentile of what is not background).
LEVEL = 0.1
SMALLEST = 0.05  # of the largest component: smaller ones are specks
BONE = 150.0  # HU: above blood (at most 100) and below the thinnest skull at 5 mm
WHITE, VISIBLE = 0.97, 0.08  # of a windowed picture's white: bone, and what is not black
# Of the head's breadth: gaps in the skull that are closed, one after the other.
GAPS = (0.01, 0.03, 0.06)
BRAIN = 0.25  # share of the head that is surely the inside of its skull
ROOMS = 0.1  # of the largest room of the skull: smaller ones are not brain
LEAST = 0.04  # share below which it is some other cavity
# Of the head's breadth: nerves, vessels and meninges between brain and scalp are thinner, about 6
# mm.
BRIDGE = 0.035
TISSUE = 0.45  # of the head's median: brain is brighter, skull and most of the fluid darker
STRIPPED = 0.8  # share of the head above which there is no scalp to leave out
MARGIN = 0.08  # of the head's breadth: scalp and skull, where there is no ring of bone


def foreground(voxels: np.ndarray, method: str = "auto") -> np.ndarray:
    """The foreground (D, H, W) bool of voxels (C, D, H, W), by one of METHODS."""
    if method == "all":
        return np.ones(voxels.shape[1:], dtype=bool)
    if method == "nonzero":
        return (voxels != 0).any(axis=0)

    if method == "head-ct":
        solid = voxels[0] > -200
        core = _components(_opened(solid), smallest=1.0)
        return _filled(ndimage.binary_dilation(core, np.ones((1, 3, 3)), iterations=3) & solid)
    if method == "head-png":
        return np.stack([_head(plane > VISIBLE * voxels.max()) for plane in voxels.max(axis=0)])
    if method == "brain-ct":
        return _brains(voxels.max(axis=0))
    if method == "brain-mr":
        return _brain_mr(voxels)
    bright = np.zeros(voxels.shape[1:], dtype=bool)
    for values in voxels:
        bright |= _bright(values)
    if not bright.any():
        return np.ones_like(bright)
    return _filled(_components(bright, SMALLEST))


def _opened(solid: np.ndarray) -> np.ndarray:
    """Remove parts thinner than about 1 % of the image: bridges of ears to the table, its
    shells."""
    return ndimage.binary_opening(
        solid, np.ones((1, 3, 3)), iterations=max(1, max(solid.shape[1:]) // 128)
    )


def _head(visible: np.ndarray) -> np.ndarray:
    """The largest object of a plane (H, W), filled; thin ones (table, text) are none."""
    solid = ndimage.binary_closing(_opened(visible[None])[0], iterations=2) & visible
    return ndimage.binary_fill_holes(_components(solid[None], smallest=1.0)[0])


def _brains(values: np.ndarray) -> np.ndarray:
    """Insides of skulls (D, H, W), of HU or of a windowed picture.

    They are searched on at most about 256 pixels a side.
    Where a plane of the volume shows a closed skull, the large rooms through all planes are the
    brain, and planes that they do not reach (face, neck) stay empty: what is bright there is muscle
    and vessels. Without one: the head less its rim.
    """
    hu = float(values.min()) < -100
    bone = values > (BONE if hu else WHITE * float(values.max()))
    visible = values > (-200 if hu else VISIBLE * float(values.max()))
    step = max(1, max(values.shape[1:]) // 256)
    brains = np.zeros(values.shape, dtype=bool)
    coarse = [part[:, ::step, ::step] for part in (bone, visible)]
    heads = [_head(plane) for plane in coarse[1]]
    small = np.stack(
        [_inside_of_skull(w, v, head, hu) for w, v, head in zip(*coarse, heads, strict=True)]
    )
    if (
        max(room.sum() / max(1, head.sum()) for room, head in zip(small, heads, strict=True))
        >= BRAIN
    ):
        # Planes above and below the brain are left empty, not guessed at.
        small = _components(small, ROOMS)
    else:  # a plane or a few of which none has a closed skull
        small = np.stack(
            [
                (
                    room
                    if room.sum() >= max(1, LEAST * head.sum())
                    else _grown(head, -MARGIN * np.sqrt(head.sum()))
                )
                for room, head in zip(small, heads, strict=True)
            ]
        )
    for target, plane in zip(brains, small, strict=True):
        large = np.repeat(np.repeat(plane, step, axis=0), step, axis=1)
        target[:] = large[: target.shape[0], : target.shape[1]]
    return brains


def _brain_mr(voxels: np.ndarray) -> np.ndarray:
    """A rough brain (D, H, W) of MR: the tissue apart from the scalp once thin bridges are cut.

    Enough to crop and scale; muscles of the face and scalp at the vertex can be in it. Measurements
    need a skull-stripper's mask (``brain_mask``).
    """
    head = foreground(voxels)
    step = -(-max(head.shape[1:]) // 128)
    small, values = head[:, ::step, ::step], voxels[0][:, ::step, ::step]
    ground = float(np.median(values[~small])) if (~small).any() else float(values.min())
    tissue = (values - ground > TISSUE * (float(np.median(values[small])) - ground)) & small
    radius = BRIDGE * np.sqrt(small.sum(axis=(1, 2)).max())
    core = _components(np.stack([_grown(plane, -radius) for plane in tissue]), smallest=0.5)
    brain = np.stack([_grown(_grown(plane, 3 * radius), -2 * radius) for plane in core]) & small
    if brain.sum() >= STRIPPED * small.sum():
        return head
    large = np.repeat(np.repeat(brain, step, axis=1), step, axis=2)
    return _filled(large[:, : head.shape[1], : head.shape[2]] & head)


def _inside_of_skull(
    bone: np.ndarray, visible: np.ndarray, head: np.ndarray, hu: bool
) -> np.ndarray:
    area = int(head.sum())
    breadth, best = np.sqrt(area), np.zeros_like(head)
    for gap in GAPS:
        ring = _grown(_grown(bone & head, gap * breadth), -gap * breadth)
        # In pictures, fluid is black like air.
        rooms = ndimage.binary_fill_holes(ring) & ~ring & (visible | (not hu))
        labels, _ = ndimage.label(ndimage.binary_opening(rooms, iterations=2))
        pixels, visible_pixels = (
            np.bincount(labels.ravel(), weights=w) for w in (None, visible.ravel())
        )
        # Sinuses and air cells are enclosed as well, but black.
        pixels[0], pixels[visible_pixels < pixels / 2] = (0, 0)
        interior = ndimage.binary_fill_holes(
            ((pixels > 0) & (pixels >= ROOMS * pixels.max()))[labels]
        )
        if interior.sum() > best.sum():
            best = interior
        if best.sum() >= BRAIN * area:
            break
    return best


def _grown(solid: np.ndarray, pixels: float) -> np.ndarray:
    """Dilate a plane by a disc of that radius, or erode it for a negative one.

    Outside the plane lies background.
    """
    if pixels >= 0:
        return ndimage.distance_transform_edt(~solid) <= pixels if solid.any() else solid
    return ndimage.distance_transform_edt(np.pad(solid, 1))[1:-1, 1:-1] > -pixels


def _bright(values: np.ndarray) -> np.ndarray:
    smooth = ndimage.gaussian_filter(values, (0, 1, 1)) if min(values.shape[1:]) >= 64 else values
    border = np.concatenate([edge.ravel() for edge in (values[:, [0, -1]], values[:, :, [0, -1]])])
    ground, lowest, highest = float(np.median(border)), float(values.min()), float(values.max())
    if ground - lowest > LEVEL * (highest - lowest) and (border == ground).mean() > 0.95:
        # z-scored inside the head, or a white frame: the background is not the darkest.
        deviation = np.abs(smooth - ground)
        return deviation > LEVEL / 5 * float(np.percentile(deviation, 99))
    floor = float(smooth.min())
    above = smooth[smooth > floor]
    if above.size == 0:
        return np.zeros(values.shape, dtype=bool)
    return smooth > floor + LEVEL * (float(np.percentile(above, 99)) - floor)


def _components(solid: np.ndarray, smallest: float) -> np.ndarray:
    labels, count = ndimage.label(solid, structure=np.ones((3, 3, 3)))
    if count <= 1:
        return solid
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= smallest * sizes.max())[labels] & solid


def _filled(solid: np.ndarray) -> np.ndarray:
    return np.stack([ndimage.binary_fill_holes(plane) for plane in solid])
