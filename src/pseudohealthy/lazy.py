"""What is named in a table and imported when it is asked for.

A table of readers, writers, methods or data sets names its functions, so that listing it imports
nothing. This is the one place where such a name is imported; tests/test_imports.py says which
tables there are.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def lazy(where: str | Callable[..., Any]) -> Any:
    """What `where` names, or is.

    Args:
        where: "module:name", the module within this package, as "io.nifti:load"; or the function
            itself, as a plugin gives it.
    """
    if not isinstance(where, str):
        return where
    module, name = where.split(":")
    return getattr(importlib.import_module(f"pseudohealthy.{module}"), name)
