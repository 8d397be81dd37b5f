"""What a reader tells of a file: its error and its warnings."""

from __future__ import annotations

import pytest

from pseudohealthy import io
from pseudohealthy.errors import Fault


def fault(path) -> Fault:
    with pytest.raises(Fault) as caught:
        io.read(path)
    return caught.value


def warned(scan, word: str) -> bool:
    return any(w.startswith(word) for w in scan.warnings)
