"""Reference masks: what a file marks, said where it had to be decided, refused where it is no mask.

A figure is only as right as its reference. So a copy of the image, the image with the lesion drawn
on it and a mask that marks the air around the organ are refused; JPEG's ringing, soft edges and
probabilities are cut at half, label maps are taken as they are, and each of these is said.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pseudohealthy.counts import many
from pseudohealthy.errors import Fault
from pseudohealthy.io.scan import Scan

MOST_LABELS = 32  # more whole numbers than this are shades, or numbered lesions
MOST_BETWEEN = 0.2  # share of voxels between 10 and 90 % of the scale, beyond which it is an image
NEAR = 4  # voxels from what is marked, within which shades are an edge
COPY = 0.9  # correlation with the image from which many values are a copy of it
AIR = 0.05  # of the image's range above its lowest values is the air around an organ
OVERLAY = "the image with the lesion drawn on it, not a mask"
CURE = "give the mask alone: 0 and 1 (or 255), or integer labels"


def drawn(colours: np.ndarray, alpha: np.ndarray | None, warnings: list[str]) -> np.ndarray:
    """What a picture of a mask shows, (H, W): black and transparent are 0.

    Args:
        colours: (H, W) grey or (H, W, 3).
        alpha: (H, W) of the same type, or None.

    Raises Fault MASK_OVERLAY for grey levels and colours together.
    """
    if alpha is not None and alpha.min() < alpha.max():
        seen = alpha > alpha.max() // 2
        inks = np.unique(colours[seen].reshape(seen.sum(), -1), axis=0)
        if len(inks) == 1:
            warnings.append("MASK_ALPHA: all of it has one colour, so its transparency is the mask")
            return alpha
        warnings.append("MASK_ALPHA: transparent pixels count as background")
        colours = np.where(seen if colours.ndim == 2 else seen[..., None], colours, 0)
    if colours.ndim == 2 or (colours == colours[..., :1]).all():
        return colours if colours.ndim == 2 else colours[..., 0]
    kinds = np.unique(colours.reshape(-1, 3), axis=0)
    greys = (kinds.min(1) == kinds.max(1)) & (kinds.max(1) > 0)
    if greys.sum() > 3:  # more greys than a colour table has, beside colours
        raise Fault("MASK_OVERLAY", OVERLAY, CURE)
    few = len(kinds) <= MOST_LABELS
    return (colours != 0).any(axis=-1).astype(np.uint8) if few else colours.max(axis=-1)


def marked(values: np.ndarray, scan: Scan, ignore: Sequence[int], lossy: bool) -> np.ndarray:
    """The voxels (D, H, W) that a mask on the scan's grid marks; decisions go to scan.warnings.

    Args:
        ignore: labels that count as background.
        lossy: the file was JPEG or its like.

    Raises Fault MASK_VALUES, MASK_INVERTED.
    """
    labels = np.unique(values)
    if not np.any(labels):
        return np.zeros(values.shape, bool)
    if lossy or not (_labelled(labels) or _instances(values, labels)):
        found = _cut(values, labels, lossy, scan)
    else:
        if len(labels) > 4 and labels[-1] > MOST_LABELS and _copies(values, scan.voxels[0]):
            raise _no_mask(labels, "a copy of the image")
        found = (values > 0) & ~np.isin(np.round(values), list(ignore))
        if len(labels[labels > 0]) > 1:
            but = f" except {list(ignore)}" if ignore else ""
            _say(scan.warnings, f"MASK_LABELS {_shown(labels)}: all above 0 count{but}")
    _require_plausible(found, scan)
    return found


def _shown(labels: np.ndarray) -> str:
    return ", ".join(f"{value:g}" for value in labels[:8]) + ", ..." * (len(labels) > 8)


def _say(warnings: list[str], text: str) -> None:
    if text not in warnings:
        warnings.append(text)


def _copies(values: np.ndarray, image: np.ndarray) -> bool:
    step = max(1, values.size // 2**20)
    one, other = values.ravel()[::step], image.ravel()[::step]
    if one.std() == 0 or other.std() == 0:
        return False
    return abs(np.corrcoef(one, other)[0, 1]) > COPY


def _labelled(labels: np.ndarray) -> bool:
    """Whether these values name things: one value, or few whole numbers that are not the two ends
    of a scale with JPEG's ringing about them."""
    if labels[0] < 0:
        return False
    if len(labels[labels > 0]) == 1:
        return True
    whole = np.abs(labels - np.round(labels)).max() < 1e-3 and labels[labels > 0].min() > 0.5
    if not whole or len(labels) > MOST_LABELS:
        return False
    low, high = labels[labels > 0] < 0.15 * labels[-1], labels[labels > 0] > 0.85 * labels[-1]
    ringing = labels[-1] > 127 and low.any() and high.sum() > 1 and (low | high).all()
    return not ringing


def _instances(values: np.ndarray, labels: np.ndarray) -> bool:
    """Whether many whole numbers are regions of one value each, as numbered lesions are, and not
    the soft edges of what is marked."""
    if labels[0] < 0 or (labels != np.round(labels)).any() or len(labels) <= MOST_LABELS:
        return False
    high = labels[-1]
    between, found = (values > high / 10) & (values < 0.9 * high), values >= high / 2
    beside = values[..., 1:], values[..., :-1]
    both = (beside[0] > 0) & (beside[1] > 0)
    flat = (beside[0] == beside[1])[both].mean() if both.any() else 0
    return bool(flat > 0.8) and not _at_edges(between, found)


def _no_mask(labels: np.ndarray, why: str) -> Fault:
    return Fault(
        "MASK_VALUES", f"a mask of {many(len(labels), 'value')}: {_shown(labels)}: {why}", CURE
    )


def _cut(values: np.ndarray, labels: np.ndarray, lossy: bool, scan: Scan) -> np.ndarray:
    """Shades between nothing and marked, cut at half of their scale."""
    high = float(labels[-1])
    whole = bool((labels == np.round(labels)).all())
    if labels[0] < -0.2 * high or (whole and high < 128):
        raise _no_mask(labels, "JPEG keeps no labels" if lossy else "neither labels nor shades")
    scale = 1.0 if high <= 1 else high
    found = values >= scale / 2
    between = (values > scale / 10) & (values < 0.9 * scale)
    if between.mean() > MOST_BETWEEN or (whole and not _at_edges(between, found)):
        copied = _copies(values, scan.voxels[0])
        raise _no_mask(labels, "a copy of the image" if copied else "shades, not marks")
    kind = "MASK_JPEG" if lossy else "MASK_PROBABILITY" if high <= 1 else "MASK_SHADES"
    count = f"{found.sum()} of {(values > 0).sum()} voxels above 0 count"
    _say(scan.warnings, f"{kind} of 0 to {high:g}: cut at {scale / 2:g}; {count}")
    return found


def _at_edges(between: np.ndarray, found: np.ndarray) -> bool:
    """Whether shades lie beside what is marked, as soft edges do and other labels do not."""
    from scipy import ndimage

    near = ndimage.binary_dilation(found, np.ones((1, 3, 3), bool), iterations=NEAR)
    return bool((between & ~near).sum() <= 0.2 * between.sum())


def _require_plausible(found: np.ndarray, scan: Scan) -> None:
    """Fault MASK_INVERTED where the air around the organ is marked; a warning where most is."""
    if found.mean() <= 0.5:
        return
    image = scan.voxels[0]
    low, high = np.percentile(image.ravel()[:: max(1, image.size // 2**20)], (1, 99))
    air = image <= low + AIR * (high - low)
    count = f"{found.sum()} of {found.size} voxels are marked"
    if air.mean() > 0.1 and found[air].mean() > 0.9:
        what = f"{count}, the darkest part of the image among them: the mask is inverted"
        raise Fault("MASK_INVERTED", what, "turn it, so that what is not marked is 0")
    _say(scan.warnings, f"MASK_MOST: {count}; check that the mask is not inverted")
