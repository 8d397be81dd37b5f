"""Find disease in medical images by restoring each scan to its healthy twin. Research use only.

    import pseudohealthy as ph
    detect = ph.load("runs/brain")        # a trained run, ready: scan in, finding out
    finding = detect("scan.nii.gz")       # a path, a folder, an array or a tensor
    finding.save("out")

Public names are imported on first use, so that ``import pseudohealthy`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pseudohealthy.version import __version__ as __version__

_WHERE = {
    "Canvas": "preprocessing.canvas",
    "Case": "data.manifest",
    "Detector": "detection.detector",
    "Fault": "errors",
    "Finding": "detection.finding",
    "Manifest": "data.manifest",
    "Recipe": "runs.recipe",
    "Run": "runs.run",
    "Scan": "io.scan",
    "compare": "workflows.compare",
    "detect": "workflows.detect",
    "evaluate": "workflows.evaluate",
    "load": "detection.detector",
    "manifest": "data.given",
    "read": "io",
    "sweep": "workflows.sweep",
    "train": "workflows.train",
}
__all__ = [*_WHERE, "__version__"]

if TYPE_CHECKING:
    from pseudohealthy.data.given import manifest as manifest
    from pseudohealthy.data.manifest import Case as Case
    from pseudohealthy.data.manifest import Manifest as Manifest
    from pseudohealthy.detection.detector import Detector as Detector
    from pseudohealthy.detection.detector import load as load
    from pseudohealthy.detection.finding import Finding as Finding
    from pseudohealthy.errors import Fault as Fault
    from pseudohealthy.io import read as read
    from pseudohealthy.io.scan import Scan as Scan
    from pseudohealthy.preprocessing.canvas import Canvas as Canvas
    from pseudohealthy.runs.recipe import Recipe as Recipe
    from pseudohealthy.runs.run import Run as Run
    from pseudohealthy.workflows.compare import compare as compare
    from pseudohealthy.workflows.detect import detect as detect
    from pseudohealthy.workflows.evaluate import evaluate as evaluate
    from pseudohealthy.workflows.sweep import sweep as sweep
    from pseudohealthy.workflows.train import train as train


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'pseudohealthy' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"pseudohealthy.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
