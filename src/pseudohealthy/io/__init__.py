"""Files in, files out: find scans, read one, read a mask on its grid, write volumes back where they
came from.

Importing this package is cheap: format libraries are imported when a file of their format is
opened.
"""

from __future__ import annotations

from pseudohealthy.io.atomic import atomic, write_json, write_text
from pseudohealthy.io.discover import Skipped, Source, Survey, discover, split_item, survey
from pseudohealthy.io.read import read, read_image, read_mask
from pseudohealthy.io.write import write_volume

__all__ = [
    "Skipped",
    "Source",
    "Survey",
    "atomic",
    "discover",
    "read",
    "read_image",
    "read_mask",
    "split_item",
    "survey",
    "write_json",
    "write_text",
    "write_volume",
]
