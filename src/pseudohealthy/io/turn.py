"""A scan's voxels in the order of the patient's axes, and back in the order they are stored in:
permutation and flips, no resampling. `orientation` finds which."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pseudohealthy.io.scan import Scan


@dataclass(frozen=True)
class Turn:
    """Axis a of the turned array (..., D, H, W) is axis ``axes[a]`` of the stored one, reversed
    where ``flips[a]``."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def there(self, array: np.ndarray) -> np.ndarray:
        """Stored (..., D, H, W) as the model sees it; a view."""
        lead = array.ndim - 3
        turned = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        return np.flip(turned, tuple(lead + a for a in range(3) if self.flips[a]))

    def back(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `there`; a view."""
        lead = array.ndim - 3
        array = np.flip(array, tuple(lead + a for a in range(3) if self.flips[a]))
        return array.transpose(*range(lead), *(lead + int(a) for a in np.argsort(self.axes)))

    def to_stored(self, shape: tuple[int, ...]) -> np.ndarray:
        """(4, 4): index in the turned array -> index in the stored one, of this ``shape``."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1
        for a, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            matrix[axis, a] = -1 if flip else 1
            matrix[axis, 3] = shape[axis] - 1 if flip else 0
        return matrix


def acquired(array: np.ndarray, scan: Scan) -> tuple[np.ndarray, Scan]:
    """An array (..., D, H, W) on the scan's planes and the scan, both in the order that was
    acquired."""
    turn: Turn | None = getattr(scan.origin, "turn", None)
    if turn is None or scan.affine is None:
        return array, scan
    voxels = turn.back(scan.voxels)
    affine = scan.affine @ np.linalg.inv(turn.to_stored(voxels.shape[1:]))
    return turn.back(array), replace(
        scan, voxels=voxels, affine=affine, origin=replace(scan.origin, turn=None)
    )
