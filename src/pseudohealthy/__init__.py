"""Find disease in medical images by restoring each scan to its healthy twin. Research use only.

    import pseudohealthy as ph
    detect = ph.load("runs/brain")        # a trained run, ready: scan in, finding out
    finding = detect("scan.nii.gz")       # a path, a folder, an array or a tensor
    finding.save("out")

Nouns are classes, verbs are functions with the words of the commands. They are imported on first
use, so that ``import pseudohealthy`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pseudohealthy.version import __version__ as __version__

_WHERE = {
    "AnomalyMap": "maps.anomaly_map",
    "Batch": "restorers.base",
    "Canvas": "preprocessing.canvas",
    "Case": "data.manifest",
    "Comparison": "evaluation.compare",
    "Denoiser": "diffusion.denoiser",
    "Detector": "detection.detector",
    "Draw": "diffusion.noise",
    "Evaluation": "evaluation.evaluation",
    "Fault": "errors",
    "Finding": "detection.finding",
    "Manifest": "data.manifest",
    "Recipe": "runs.recipe",
    "Restoration": "restorers.base",
    "Restorer": "restorers.base",
    "Run": "runs.run",
    "Scan": "io.scan",
    "Schedule": "diffusion.schedule",
    "UNet": "networks.unet",
    "compare": "workflows.compare",
    "demo": "workflows.demo",
    "detect": "workflows.detect",
    "evaluate": "workflows.evaluate",
    "import_weights": "interop.weights",
    "inspect": "workflows.inspect",
    "load": "detection.detector",
    "manifest": "data.given",
    "prepare": "datasets",
    "read": "io",
    "register": "restorers.base",
    "resume": "workflows.train",
    "sample": "diffusion.sampler",
    "sweep": "workflows.sweep",
    "train": "workflows.train",
    "verify": "workflows.verify",
}
__all__ = [*_WHERE, "__version__"]

if TYPE_CHECKING:
    from pseudohealthy.data.given import manifest as manifest
    from pseudohealthy.data.manifest import Case as Case
    from pseudohealthy.data.manifest import Manifest as Manifest
    from pseudohealthy.datasets import prepare as prepare
    from pseudohealthy.detection.detector import Detector as Detector
    from pseudohealthy.detection.detector import load as load
    from pseudohealthy.detection.finding import Finding as Finding
    from pseudohealthy.diffusion.denoiser import Denoiser as Denoiser
    from pseudohealthy.diffusion.noise import Draw as Draw
    from pseudohealthy.diffusion.sampler import sample as sample
    from pseudohealthy.diffusion.schedule import Schedule as Schedule
    from pseudohealthy.errors import Fault as Fault
    from pseudohealthy.evaluation.compare import Comparison as Comparison
    from pseudohealthy.evaluation.evaluation import Evaluation as Evaluation
    from pseudohealthy.interop.weights import import_weights as import_weights
    from pseudohealthy.io import read as read
    from pseudohealthy.io.scan import Scan as Scan
    from pseudohealthy.maps.anomaly_map import AnomalyMap as AnomalyMap
    from pseudohealthy.networks.unet import UNet as UNet
    from pseudohealthy.preprocessing.canvas import Canvas as Canvas
    from pseudohealthy.restorers.base import Batch as Batch
    from pseudohealthy.restorers.base import Restoration as Restoration
    from pseudohealthy.restorers.base import Restorer as Restorer
    from pseudohealthy.restorers.base import register as register
    from pseudohealthy.runs.recipe import Recipe as Recipe
    from pseudohealthy.runs.run import Run as Run
    from pseudohealthy.workflows.compare import compare as compare
    from pseudohealthy.workflows.demo import demo as demo
    from pseudohealthy.workflows.detect import detect as detect
    from pseudohealthy.workflows.evaluate import evaluate as evaluate
    from pseudohealthy.workflows.inspect import inspect as inspect
    from pseudohealthy.workflows.sweep import sweep as sweep
    from pseudohealthy.workflows.train import resume as resume
    from pseudohealthy.workflows.train import train as train
    from pseudohealthy.workflows.verify import verify as verify


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'pseudohealthy' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"pseudohealthy.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
