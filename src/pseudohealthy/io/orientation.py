"""Voxels turned to the patient's axes, and back to the order they are stored in: permutation and
flips, no resampling.

So a model sees the same planes of a DICOM series and of the NIfTI file made of it, and each gets
its results on its own grid.
"""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np

from pseudohealthy.errors import Fault
from pseudohealthy.io.scan import Scan
from pseudohealthy.io.turn import Turn

# Where planes, rows and columns point, so that row 0 shown on top is the radiological view.
PLANES = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
WORLD = {"L": (0, -1), "R": (0, 1), "P": (1, -1), "A": (1, 1), "I": (2, -1), "S": (2, 1)}


def turn_to(plane: str, affine: np.ndarray, shape: tuple[int, ...]) -> Turn:
    """The turn that gives (planes, rows, columns) the directions of PLANES; affine: stored index ->
    RAS+ mm.

    A single plane is what it is, whatever plane is asked for. Raises Fault BAD_AFFINE.
    """
    orientation = nib.io_orientation(affine)  # per stored axis: world axis, direction
    if np.isnan(orientation).any():
        raise Fault("BAD_AFFINE", "the affine's axes cannot be told apart", "repair the header")
    axis_of = {int(world): (axis, sign) for axis, (world, sign) in enumerate(orientation)}
    flat = [int(orientation[axis, 0]) for axis in range(3) if shape[axis] == 1]
    if len(flat) == 1:
        plane = {2: "axial", 1: "coronal", 0: "sagittal"}[flat[0]]
    towards = [WORLD[letter] for letter in PLANES[plane]]
    first, second, third = (axis_of[world][0] for world, _ in towards)
    up, down, along = (bool(axis_of[world][1] != sign) for world, sign in towards)
    return Turn((first, second, third), (up, down, along))


def turned(scan: Scan, plane: str) -> Scan:
    """A scan as acquired with its planes cut along the patient's axes; its origin remembers how
    (`turn`)."""
    assert scan.affine is not None
    turn = turn_to(plane, scan.affine, scan.shape[1:])
    origin = replace(scan.origin, turn=turn, plane=plane)
    voxels = np.ascontiguousarray(turn.there(scan.voxels))
    return replace(
        scan, voxels=voxels, affine=scan.affine @ turn.to_stored(scan.shape[1:]), origin=origin
    )
