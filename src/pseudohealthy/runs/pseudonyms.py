"""Ids of cases and patients in a run's files, in clear or as pseudonyms that only the salt beside
the run can tell.

A pseudonym is an HMAC of the id under 32 random bytes in RUN.salt, beside the run and never in it.
Without the salt nobody can try ids; with it `evaluate` still finds out whether a test patient was
trained on.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from pseudohealthy.errors import BAD_OUTPUT, NO_INPUT, Fault
from pseudohealthy.runs.run import Run

DIGITS = 16  # hexadecimal ones of a pseudonym
RECORD = "salt_sha256"  # in run.json: that there is a salt, and which


def salt_file(folder: Path) -> Path:
    """RUN.salt beside the run folder."""
    folder = Path(os.path.abspath(folder))
    return folder.with_name(f"{folder.name}.salt")


def begin(run: Run) -> None:
    """Write the ids of this run as pseudonyms from now on; a salt that lies there already is used.
    Fault OUTPUT (exit 6)."""
    path = salt_file(run.folder)
    try:
        if not path.exists():
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(handle, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(32) + "\n")
        run.note(**{RECORD: fingerprint(path.read_bytes().strip())})
    except OSError as error:
        found = f"cannot write {path.name} beside the run: {error.strerror}"
        raise Fault("OUTPUT", found, "choose another --out", exit=BAD_OUTPUT) from None


def fingerprint(salt: bytes) -> str:
    return hashlib.sha256(salt).hexdigest()[:DIGITS]


def namer(run: Run) -> Callable[[str, str], str]:
    """What the run's files call the id of a "case" or a "patient": itself, or its pseudonym.

    Fault SALT (exit 3) where the run has pseudonyms and their salt is not beside it.
    """
    recorded = run.record.get(RECORD)
    if not recorded:
        return lambda kind, name: name
    path = salt_file(run.folder)
    try:
        salt = path.read_bytes().strip()
    except OSError:
        salt = b""
    if fingerprint(salt) != recorded:
        found = (
            f"the ids of run '{run.name}' are pseudonyms, and {path.name} beside it is"
            f" {'another' if salt else 'gone'}"
        )
        raise Fault("SALT", found, "put the salt of this run back beside it", exit=NO_INPUT)
    return lambda kind, name: (
        f"{kind}-{hmac.new(salt, f'{kind}|{name}'.encode(), 'sha256').hexdigest()[:DIGITS]}"
    )
