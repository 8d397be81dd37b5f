"""DICOM series as tests need them: slices edited, volumes counted."""

from __future__ import annotations

import pydicom

from pseudohealthy.io.dicom_series import group


def parts(folder) -> dict[str, int]:
    """Label -> slices of every volume found under a folder."""
    found, _ = group(sorted(p for p in folder.rglob("*") if p.is_file()))
    assert len({(g.series, g.part) for g in found}) == len(found), "labels of a series are distinct"
    return {g.part: len(g.paths) for g in found}


def change(path, **values) -> None:
    ds = pydicom.dcmread(path)
    for key, value in values.items():
        if value is None:
            delattr(ds, key)
        else:
            setattr(ds, key, value)
    ds.save_as(path)


def each(values: dict, count: int = 10) -> dict:
    """Multi-valued attributes as `write_series` takes them: a list is one value a slice."""
    return {
        key: [value] * count if isinstance(value, list) else value for key, value in values.items()
    }
