"""A file whose reads reserve no more memory than the file has bytes, whatever its header claims."""

from __future__ import annotations

import io
import os
from pathlib import Path


class Bounded(io.BufferedReader):
    """``open(path, "rb")``, but a large ``read(size)`` asks for the bytes that are left, so that a length of 4 GB in a
    file of 1 kB costs nothing: the standard reader reserves the size it is asked for."""

    def __init__(self, path: Path | str):
        super().__init__(io.FileIO(path))
        self.size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > 2**16:
            size = max(0, min(size, self.size - self.tell()))
        return super().read(size)
