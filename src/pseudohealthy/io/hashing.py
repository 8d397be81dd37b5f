"""Fingerprints of files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path


def sha256(paths: Sequence[Path]) -> str:
    """Of one file its sha256; of several (a DICOM series) the sha256 of their sorted ones, so that
    names do not count."""
    digests = []
    for path in paths:
        with open(path, "rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return (
        digests[0]
        if len(digests) == 1
        else hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
    )
