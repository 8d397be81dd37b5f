"""The 12-bit header error of the RSNA haemorrhage set is repaired on reading, and nothing else is
touched."""

from __future__ import annotations

import numpy as np
import pytest

from pseudohealthy import io
from rsna_slices import rsna_slice


@pytest.fixture
def hu() -> np.ndarray:
    return np.linspace(-1000, 3095, 32 * 32).round().reshape(32, 32)


def change(path, **values):
    import pydicom

    ds = pydicom.dcmread(path)
    for key, value in values.items():
        setattr(ds, key, value)
    ds.save_as(path)
    return path


def test_wrapped_air_is_air_again_with_a_warning(tmp_path, hu):
    scan = io.read(rsna_slice(tmp_path, hu, "ID_00000000a", wrapped=True))
    np.testing.assert_array_equal(scan.voxels[0, 0], hu)
    assert scan.units == "HU" and any(w.startswith("HU_REPAIRED") for w in scan.warnings)


def test_slices_of_both_kinds_make_one_series_in_hu(tmp_path, hu):
    for number in range(4):
        rsna_slice(
            tmp_path / "head", hu, f"ID_00000000{number}", z=5.0 * number, wrapped=number % 2 == 1
        )
    scan = io.read(tmp_path / "head")
    np.testing.assert_array_equal(scan.voxels[0], np.broadcast_to(hu, (4, 32, 32)))


@pytest.mark.parametrize(
    "values",
    [
        {"RescaleIntercept": -1024},
        {"RescaleIntercept": -100},
        {"BitsStored": 16, "HighBit": 15},
        {"Modality": "MR"},
    ],
)
def test_other_headers_are_believed(tmp_path, hu, values):
    path = change(rsna_slice(tmp_path, hu, "ID_00000000a", wrapped=True), **values)
    scan = io.read(path)
    np.testing.assert_array_equal(scan.voxels[0, 0], hu % 4096 + values.get("RescaleIntercept", 0))


def test_an_intercept_just_above_the_bound_is_replaced(tmp_path, hu):
    path = change(rsna_slice(tmp_path, hu, "ID_00000000a", wrapped=True), RescaleIntercept=-99)
    np.testing.assert_array_equal(io.read(path).voxels[0, 0], hu)
