"""An interrupted `detect` taken up again: a case is finished when every hash in its case.json is
true."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy.detection.outputs import OUTPUTS
from pseudohealthy.formats import result_endings
from pseudohealthy.io.atomic import plain
from pseudohealthy.io.hashing import sha256

TEMPORARY = re.compile(r"\.tmp-\d+-[0-9a-f]{8}")  # as `atomic` and `together` name them


def request_sha256(made: dict[str, Any], **asked: Any) -> str:
    """What was asked for: run, weights, settings, threshold, kinds. Another request makes every
    case unfinished."""
    return hashlib.sha256(json.dumps(plain({**made, **asked}), sort_keys=True).encode()).hexdigest()


def digests(truths: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The sha256 of every reference."""
    return {
        name: hashlib.sha256(np.packbits(truth).tobytes()).hexdigest()
        for name, truth in truths.items()
    }


def described(folder: Path, request: str) -> dict[str, Any] | None:
    """case.json of a case that this request has written; else None."""
    try:
        said = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        return said if said["request_sha256"] == request and "outputs" in said else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def finished(folder: Path, input_sha256: str, request: str) -> dict[str, Any] | None:
    """case.json of a finished case: same input, same request, every output there and unchanged;
    else None."""
    said = described(folder, request)
    try:
        if said is None or said["input_sha256"] != input_sha256:
            return None
        for name, digest in said["outputs_sha256"].items():
            if sha256([folder / said["outputs"][name]]) != digest:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return said


def remove_temporary(folder: Path) -> None:
    """Remove the half-written files and folders that a killed process left anywhere below
    `folder`."""
    for place, folders, names in os.walk(folder):
        for name in names:
            if TEMPORARY.match(name):
                Path(place, name).unlink(missing_ok=True)
        for name in filter(TEMPORARY.fullmatch, list(folders)):
            folders.remove(name)
            shutil.rmtree(Path(place, name), ignore_errors=True)


def remove_cases(folder: Path) -> None:
    """Remove what an earlier `detect` wrote into the case folders of `folder`; files of others
    stay, and their folders."""
    listed: set[str] = set()  # where they cannot be read, only folders with our case.json are known
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        listed = {
            row["case_id"]
            for row in json.loads((folder / "findings.json").read_text("utf-8"))["findings"]
        }
    for case in sorted(folder.iterdir()):
        if not case.is_symlink() and case.is_dir() and (case.name in listed or _ours(case)):
            remove_case(case)


def written() -> set[str]:
    """All that `Finding.save` may leave in a case's folder; nothing else there is ever removed."""
    names = {name for output in OUTPUTS.values() for name in output.files}
    return {name + ("" if "." in name else suffix) for name in names for suffix in result_endings()}


def remove_case(case: Path) -> None:
    """Remove what `detect` wrote into one case folder."""
    ours = written()
    for path in list(case.iterdir()):
        if path.name in ours and (path.is_file() or path.is_symlink()):
            path.unlink()
    if not any(case.iterdir()):
        case.rmdir()


def remove_failed(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Remove what an earlier request wrote for cases that have failed now: it is not what their row
    says."""
    for row in rows:
        case = folder / row["case_id"]
        if row["status"] == "failed" and case.is_dir() and not case.is_symlink() and _ours(case):
            remove_case(case)


def _ours(case: Path) -> bool:
    try:
        said = json.loads((case / "case.json").read_text(encoding="utf-8"))
        return said["research_use_only"] is True and said["case_id"] == case.name
    except (OSError, ValueError, KeyError, TypeError):
        return False
