"""Was a patient trained on? Asked of the run's split.csv, whatever its ids are called there."""

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


def leaked(run: Run, cases: Sequence[Case], splits: Sequence[str]) -> list[str]:
    """Return the patients of the cases that the run used in one of the splits.

    Raises:
        Fault: SALT (exit 3), see `namer`.
    """
    path = run.folder / "split.csv"
    if not path.is_file():
        return []
    pseudonym = namer(run)
    split_rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    used = set(split_rows.loc[split_rows["split"].isin(splits), "patient_id"])
    names = {
        name: case.patient_id for case in cases for name in (case.patient_id, case.known_as) if name
    }
    return sorted(
        {patient for name, patient in names.items() if pseudonym("patient", name) in used}
    )


def refuse(
    run: Run, cases: Sequence[Case], *, what: str, splits: Sequence[str], allow: bool
) -> list[str]:
    """Refuse cases whose patients the run knows, or note them; no note means none is known.

    Args:
        run: the run that is measured.
        cases: what it is measured on.
        what: the split of the cases, "test" or "validation", for the message.
        splits: the run's splits that must not hold them.
        allow: whether to go on all the same; the note then stands beside every figure.

    Raises:
        Fault: LEAK (exit 2), or SALT (exit 3) where nothing can tell.
    """
    of = "training or validation" if "val" in splits else "training"
    try:
        patients = leaked(run, cases, splits)
    except Fault as fault:
        if fault.code != "SALT" or not allow:
            fault.cure += ", or add --allow-leak and say so"
            raise
        return _said(f"LEAK: {fault.message}; whether {what} patients were trained on is not known")
    if patients and not allow:
        raise Fault(
            "LEAK",
            f"{many(len(patients), f'{what} patient was', f'{what} patients were')} in this run's"
            f" {of} data, first {patients[0]}",
            "take other patients, or add --allow-leak and say so",
            exit=USAGE,
        )
    return (
        _said(
            f"LEAK: {many(len(patients), f'{what} patient was', f'{what} patients were')} in the"
            " training data; every figure is optimistic"
        )
        if patients
        else []
    )


def _said(note: str) -> list[str]:
    say(f"warning: {note}")
    return [note]


def refuse_leaks(run: Run, test: list[Case], allow: bool) -> list[str]:
    """Refuse a test patient that the run was trained or validated on; where allowed, note it."""
    return leaks.refuse(run, test, what="test", splits=("train", "val", ""), allow=allow)


def refuse_trained(run: Run, cases: list[Case], allow: bool) -> list[str]:
    """Refuse a validation patient that the run was trained on; where allowed, note it."""
    return leaks.refuse(run, cases, what="validation", splits=("train",), allow=allow)
