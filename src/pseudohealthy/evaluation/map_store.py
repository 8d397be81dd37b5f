"""The voxel maps of an evaluation, in memory up to a bound, then in temporary files.

Every method's map of every case is needed until the last figure: nine methods with their controls
on 369 volumes of a million foreground voxels are some 100 GB. The files have no name, lie in the
folder for temporary files (TMPDIR) and vanish with the process.
"""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np

from pseudohealthy.errors import BAD_OUTPUT, Fault

IN_MEMORY = 1 << 30  # bytes
# Bytes of a file: a process may map some 65,000 files, so one for each map would not do.
BLOCK = 1 << 28


class Spool:
    """Keeps arrays in memory, then in temporary files; what comes back is read-only.

    Args:
        in_memory: bytes kept in memory.
        block: bytes of a file.
    """

    def __init__(self, in_memory: int = IN_MEMORY, block: int = BLOCK):
        self.left, self.block = in_memory, block
        self.open: np.memmap | None = None
        self.used = 0

    def keep(self, values: np.ndarray) -> np.ndarray:
        """Return the same values, wherever they now are.

        Raises:
            Fault: OUTPUT (exit 6) where there is no room for them.
        """
        if values.nbytes <= self.left or not values.nbytes:
            self.left -= values.nbytes
            stored = values
        else:
            if self.open is None or self.used + values.nbytes > len(self.open):
                self.open, self.used = self._file(max(self.block, values.nbytes)), 0
            span = slice(self.used, self.used + values.nbytes)
            self.used += -(-values.nbytes // 8) * 8  # the next array begins aligned
            stored = np.asarray(self.open[span]).view(values.dtype).reshape(values.shape)
            stored[...] = values
        stored.flags.writeable = False
        return stored

    def _file(self, size: int) -> np.memmap:
        if self.open is not None and hasattr(mmap, "MADV_DONTNEED"):
            # Leaves memory, not the file.
            self.open._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
        with tempfile.TemporaryFile() as file:  # the map holds the file open
            try:
                # Without room set aside, a full disk would end the process where a page is written.
                (
                    os.posix_fallocate(file.fileno(), 0, size)
                    if hasattr(os, "posix_fallocate")
                    else file.truncate(size)
                )
            except OSError as error:
                cure = (
                    "free some, set TMPDIR to another disk, or evaluate fewer cases at a time"
                    " (--limit)"
                )
                raise Fault(
                    "OUTPUT",
                    f"no room for {size >> 20} MB of maps in {tempfile.gettempdir()}:"
                    f" {error.strerror}",
                    cure,
                    exit=BAD_OUTPUT,
                ) from error
            return np.memmap(file, np.uint8, "r+", shape=(size,))
