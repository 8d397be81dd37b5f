"""What is there: info."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from typing import Any

from pseudohealthy.commands import kinds
from pseudohealthy.commands.base import Command
from pseudohealthy.version import __version__

NAME = re.compile(r"[\w.-]+")
EXTRA = re.compile(r"extra\s*==\s*[\"']([\w-]+)[\"']")


@dataclass(kw_only=True)
class Info(Command):
    """What is there: recipes, restorers, models, data sets, protocols, extras and the device."""

    def run(self) -> int:
        found = gathered(self.device)
        self.show(found, printed(found), asked=True)
        return 0


def gathered(device: str) -> dict[str, Any]:
    """Everything `info` tells."""
    from pseudohealthy.evaluation.protocols import PROTOCOLS
    from pseudohealthy.restorers import REGISTRY

    return {
        "version": __version__,
        "device": computes_on(device),
        "models": kinds.names("run"),
        "recipes": kinds.names("recipe"),
        "restorers": sorted(REGISTRY),
        "data_sets": kinds.names("dataset"),
        "protocols": sorted(PROTOCOLS),
        "extras": extras(),
    }


def computes_on(device: str) -> dict[str, Any]:
    """The device that commands would take, and how it computes. Fault DEVICE (exit 2)."""
    import platform

    import torch

    from pseudohealthy.devices import pick_device, precision_of

    place = pick_device(device)
    return {
        "kind": place.type,
        "name": torch.cuda.get_device_name(place) if place.type == "cuda" else platform.machine(),
        "precision": str(precision_of("auto", place)).removeprefix("torch."),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def extras() -> dict[str, list[str]]:
    """By extra, the packages of it that are missing; an empty list is an extra that is whole."""
    try:
        needed = importlib.metadata.requires("pseudohealthy") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for line in needed:
        package, extra = NAME.match(line), EXTRA.search(line)
        if package and extra and extra[1] not in ("dev", "docs", "fuzz"):
            found.setdefault(extra[1], []).extend([] if installed(package[0]) else [package[0]])
    return found


def installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def printed(found: dict[str, Any]) -> str:
    """The same for people."""
    from pseudohealthy.report.terminal import columns, text

    device = found["device"]
    lines = {
        "version": f"{found['version']} (Python {device['python']}, torch {device['torch']})",
        "device": f"{device['kind']}: {device['name']}, {device['threads']} threads, "
        f"{device['instructions']}; computes in {device['precision']}",
    }
    for title in ("models", "recipes", "restorers", "data_sets", "protocols"):
        lines[title.replace("_", " ")] = ", ".join(found[title])
    for extra, missing in found["extras"].items():
        cure = f"pip install 'pseudohealthy[{extra}]' for {', '.join(missing)}"
        lines[f"extra {extra}"] = cure if missing else "installed"
    return text(columns(lines.items()))
