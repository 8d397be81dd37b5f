"""Every file is written to a temporary name beside its place and renamed: nothing half-written
carries a final name."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pseudohealthy.errors import BAD_OUTPUT, Fault


def _unwritable(path: Path, error: OSError) -> Fault:
    return Fault(
        "OUTPUT",
        f"cannot write {path.name}: {error.strerror or type(error).__name__}",
        "free some space or choose another folder with --out",
        exit=BAD_OUTPUT,
    )


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder with the same suffixes; on success flush it to disk
    and rename it.

    Missing parent folders are made. On any exception the temporary file is removed and an existing
    file of that name stays as it was. An OSError (no space, read-only, permission) becomes
    ``Fault(OUTPUT, exit=6)``.
    """
    path = Path(path)
    tmp = path.with_name(f".tmp-{os.getpid()}-{os.urandom(4).hex()}" + "".join(path.suffixes[-2:]))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield tmp
        with open(tmp, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(tmp, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            tmp.unlink()


@contextmanager
def together(folder: Path | str) -> Iterator[Path]:
    """Yield a temporary folder inside `folder`; on success every file in it moves to the same place
    below `folder`.

    On any exception it is removed and nothing below `folder` has changed: several files are written
    all or none. An OSError while it is made or moved becomes ``Fault(OUTPUT, exit=6)``.
    """
    folder = Path(folder)
    stage = folder / f".tmp-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        try:
            stage.mkdir(parents=True)
        except OSError as error:
            raise _unwritable(folder, error) from error
        yield stage
        for path in sorted(path for path in stage.rglob("*") if not path.is_dir()):
            place = folder / path.relative_to(stage)
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, place)
            except OSError as error:
                raise _unwritable(place, error) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_text(path: Path | str, text: str) -> Path:
    """UTF-8 text, with line ends as given."""
    with atomic(path) as tmp:
        tmp.write_text(text, encoding="utf-8", newline="")
    return Path(path)


def write_json(path: Path | str, obj: Any) -> Path:
    """Indented, strict JSON: numpy scalars and arrays become numbers and lists, non-finite numbers
    become null."""
    return write_text(
        path, json.dumps(plain(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )


def plain(obj: Any) -> Any:
    if hasattr(obj, "tolist"):  # numpy and torch, scalars included
        obj = obj.tolist()
    if isinstance(obj, dict):
        return {str(key): plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple, set, frozenset)):
        return [plain(value) for value in obj]
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    return str(obj) if isinstance(obj, Path) else obj
