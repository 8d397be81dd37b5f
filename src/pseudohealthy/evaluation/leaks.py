"""Were these patients trained on? Asked of the run's split.csv, whatever its ids are called
there."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pseudohealthy.counts import many
from pseudohealthy.data.manifest import Case
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.evaluation import leaks
from pseudohealthy.progress import say
from pseudohealthy.runs.pseudonyms import namer
from pseudohealthy.runs.run import Run


def leaked(run: Run, chosen: Sequence[Case], splits: Sequence[str]) -> list[str]:
    """Patients of the cases that the run used in one of the splits. Fault SALT (exit 3), see
    `namer`."""
    path = run.folder / "split.csv"
    if not path.is_file():
        return []
    called = namer(run)
    seen = pd.read_csv(path, dtype=str, keep_default_na=False)
    known = set(seen.loc[seen["split"].isin(splits), "patient_id"])
    names = {
        name: case.patient_id
        for case in chosen
        for name in (case.patient_id, case.known_as)
        if name
    }
    return sorted({patient for name, patient in names.items() if called("patient", name) in known})


def refuse(
    run: Run, chosen: Sequence[Case], *, what: str, splits: Sequence[str], allow: bool
) -> list[str]:
    """Notes about patients of the cases that the run knows; none is well.

    Args:
        what: The split of the cases, "test" or "validation", for the message.
        splits: The run's splits that must not hold them.
        allow: Whether to go on all the same; the note then stands beside every figure.

    Raises Fault LEAK (exit 2), or SALT (exit 3) where nothing can tell.
    """
    of = "training or validation" if "val" in splits else "training"
    try:
        found = leaked(run, chosen, splits)
    except Fault as fault:
        if fault.code != "SALT" or not allow:
            fault.cure += ", or add --allow-leak and say so"
            raise
        return _said(f"LEAK: {fault.message}; whether {what} patients were trained on is not known")
    if found and not allow:
        raise Fault(
            "LEAK",
            f"{many(len(found), f'{what} patient was', f'{what} patients were')} in this run's {of}"
            f" data, first {found[0]}",
            "take other patients, or add --allow-leak and say so",
            exit=USAGE,
        )
    return (
        _said(
            f"LEAK: {many(len(found), f'{what} patient was', f'{what} patients were')} in the"
            " training data; every figure is optimistic"
        )
        if found
        else []
    )


def _said(note: str) -> list[str]:
    say(f"warning: {note}")
    return [note]


def refuse_leaks(run: Run, test: list[Case], allow: bool) -> list[str]:
    """Fault LEAK when a test patient is one the run was trained or validated on; where allowed, a
    note that says so."""
    return leaks.refuse(run, test, what="test", splits=("train", "val", ""), allow=allow)


def refuse_trained(run: Run, chosen: list[Case], allow: bool) -> list[str]:
    """Fault LEAK when a validation patient is one the run was trained on; where allowed, a note
    that says so."""
    return leaks.refuse(run, chosen, what="validation", splits=("train",), allow=allow)
