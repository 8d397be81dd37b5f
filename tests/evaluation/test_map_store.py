"""Maps that do not fit into memory: the same figures, from files that nobody has to clear away."""

from __future__ import annotations

import os

import numpy as np
import pytest

from pseudohealthy.errors import Fault
from pseudohealthy.evaluation import measure
from pseudohealthy.evaluation.map_store import Spool
from pseudohealthy.workflows.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")


def test_every_array_comes_back_as_it_was_and_cannot_be_changed():
    rng, spool = np.random.default_rng(0), Spool(in_memory=100, block=4096)
    given = [rng.normal(size=n).astype(np.float32) for n in (20, 7, 0, 900, 33, 5000, 1)]
    kept = [spool.keep(values.copy()) for values in given]
    assert all(
        np.array_equal(one, other) and one.dtype == other.dtype
        for one, other in zip(kept, given, strict=True)
    )
    assert isinstance(kept[0].base, type(None)) and kept[3].base is not None, (
        "the first in memory, later ones in a file"
    )
    with pytest.raises(ValueError, match="read-only"):
        kept[3][0] = 1


@pytest.mark.slow
def test_a_figure_does_not_depend_on_where_maps_are(tiny_run, pictures, monkeypatch, tmp_path):
    inside = evaluate(tiny_run, pictures, device="cpu")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    spooled = []

    class Small(Spool):
        def __init__(self) -> None:
            super().__init__(in_memory=0, block=1 << 16)
            spooled.append(self)

    monkeypatch.setattr(measure, "Spool", Small)
    outside = evaluate(tiny_run, pictures, device="cpu")
    assert spooled[0].open is not None
    assert [record.as_dict() for record in inside.records] == [
        record.as_dict() for record in outside.records
    ]
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_said_before_a_page_is_touched(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(Fault, match="TMPDIR") as caught:
        Spool(in_memory=0).keep(np.ones(10, np.float32))
    assert (caught.value.code, caught.value.exit) == ("OUTPUT", 6)
