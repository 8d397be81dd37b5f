"""Images that a Python program holds in memory, named so that a manifest can list them.

The name is a digest of the voxels and their place: the same images give the same manifest, so that
a run can be taken up again with them. Only what this process was given can be read by it, and an
image is held no longer than its name: with the last case that lists it, it goes.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from pseudohealthy.errors import NO_INPUT, Fault
from pseudohealthy.io.names import HELD
from pseudohealthy.io.objects import scan_of
from pseudohealthy.io.scan import Scan


class Held(str):
    """A name that keeps what it names."""

    image: Any


_HELD: WeakValueDictionary[str, Held] = WeakValueDictionary()


def hold(image: Any) -> tuple[str, Scan]:
    """Keep an image, or a mask; return the name that `held` knows it by, and its scan.

    Args:
        image: As `io.objects.scan_of` takes it, or a `Scan`.
    """
    scan = image if isinstance(image, Scan) else scan_of(image)
    digest = hashlib.sha256(str(scan.voxels.shape).encode())
    digest.update(np.ascontiguousarray(scan.voxels).tobytes())
    if scan.affine is not None:
        digest.update(np.asarray(scan.affine, dtype=np.float64).tobytes())
    name = Held(HELD + digest.hexdigest()[:32])
    name.image = image
    return _HELD.setdefault(str(name), name), scan


def held(name: str, plane: str = "axial") -> Scan:
    """The image of that name, read in such planes; the caller may change it.

    Raises:
        Fault: NOT_FOUND (exit 3) for an image that another process held.
    """
    if (known := _HELD.get(name)) is None:
        found = "an image of the manifest was held in memory, by another process"
        raise Fault("NOT_FOUND", found, "give the images again", exit=NO_INPUT)
    image = known.image
    scan = image if isinstance(image, Scan) else scan_of(image, plane=plane)
    return replace(scan, voxels=scan.voxels.copy(), warnings=list(scan.warnings))
