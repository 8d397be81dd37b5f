"""The plane cache: what it holds, when it is rebuilt, and that one bad case does not lose the
others."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.errors import Fault
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.training.plane_store import PlaneStore, build_cache

CANVAS = Canvas(size=32, normalise="range", foreground="nonzero")


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def manifest(tmp_path):
    """A healthy picture, a volume of five planes (first empty, lesion on two), an anomalous and an
    unknown picture."""
    rng = np.random.default_rng(0)
    for name in ("h", "a", "u"):
        save(tmp_path / f"{name}.png", rng.integers(1, 255, (32, 32), dtype=np.uint8))
    for plane in range(5):
        save(
            tmp_path / f"v/{plane}.png",
            rng.integers(1, 255, (32, 32), dtype=np.uint8) * np.uint8(plane > 0),
        )
        save(
            tmp_path / f"v/{plane}_mask.png",
            np.pad(np.full((4, 4), 255 * (plane in (2, 3)), np.uint8), ((8, 20), (10, 18))),
        )
    return Manifest(
        [
            Case("h", "p1", "train", HEALTHY, "h.png", root=tmp_path),
            Case("v", "NA", "test", ANOMALOUS, "v/?.png", mask="v/*_mask.png", root=tmp_path),
            Case("a", "p3", "test", ANOMALOUS, "a.png", root=tmp_path),
            Case("u", "p4", "", None, "u.png", root=tmp_path),
        ],
        tmp_path,
    )


def test_rows_labels_and_values(manifest, tmp_path):
    store = build_cache(manifest, CANVAS, tmp_path / "cache")
    assert len(store) == 7  # the volume's empty plane is left out
    assert store.index["plane"].tolist() == [0, 1, 2, 3, 4, 0, 0]
    assert store.index["label"].fillna(-1).tolist() == [0, 0, 1, 1, 0, 1, -1]
    assert store.index["patient_id"].tolist()[1] == "NA" and store.index["split"].tolist()[-1] == ""
    assert store.select("test", HEALTHY).tolist() == [1, 4] and store.select(
        label=ANOMALOUS
    ).tolist() == [2, 3, 5]
    assert store.select().dtype == np.int64
    expected = np.asarray(Image.open(tmp_path / "v/3.png"), np.float32) / 127.5 - 1
    images = store.images([3, 0])
    assert images.dtype == torch.float32 and images.shape == (2, 1, 32, 32)
    np.testing.assert_allclose(images[0, 0], expected, atol=1e-3)
    masks = store.masks([0, 3])
    assert (
        masks is not None
        and masks.sum(dim=(1, 2)).tolist() == [0, 16]
        and masks[1, 8:12, 10:14].all()
    )
    assert store.foreground([3]).dtype == torch.bool and store.foreground([3]).all()


def test_the_cache_is_kept_until_something_changes(manifest, tmp_path):
    folder = tmp_path / "cache"
    stamp = lambda: (folder / "planes.npy").stat().st_mtime_ns  # noqa: E731
    build_cache(manifest, CANVAS, folder)
    first = stamp()
    build_cache(manifest, CANVAS, folder)
    assert stamp() == first and len(PlaneStore.open(folder)) == 7
    times = [first]
    for changed, canvas in (
        (manifest, replace(CANVAS, size=40)),
        (Manifest(manifest.cases[:2], tmp_path), CANVAS),
    ):
        build_cache(changed, canvas, folder)
        times.append(stamp())
    os.utime(tmp_path / "h.png", (1, 1))  # an image was replaced under the same name
    build_cache(Manifest(manifest.cases[:2], tmp_path), CANVAS, folder)
    assert len({*times, stamp()}) == 4


def test_without_masks_there_is_no_mask_file(manifest, tmp_path):
    folder = tmp_path / "cache"
    build_cache(manifest, CANVAS, folder)
    store = build_cache(Manifest(manifest.cases[:1], tmp_path), CANVAS, folder)
    assert store.masks([0]) is None and sorted(path.name for path in folder.iterdir()) == [
        "foreground.npy",
        "index.csv",
        "key.json",
        "planes.npy",
    ]


def test_a_bad_case_is_reported_and_the_others_kept(manifest, tmp_path):
    (tmp_path / "h.png").write_bytes(b"")
    seen = []
    store = build_cache(
        manifest,
        CANVAS,
        tmp_path / "cache",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert len(store) == 6 and len(store.faults) == 1 and "case=h" in store.faults[0]
    assert PlaneStore.open(tmp_path / "cache").faults == store.faults
    assert seen[0] == (0, 4) and seen[-1] == (4, 4)


def test_nothing_usable_is_a_fault_and_leaves_no_cache(manifest, tmp_path):
    (tmp_path / "h.png").write_bytes(b"")
    with pytest.raises(Fault) as caught:
        build_cache(Manifest(manifest.cases[:1], tmp_path), CANVAS, tmp_path / "cache")
    assert (caught.value.code, caught.value.exit) == ("NO_INPUT", 3)
    with pytest.raises(Fault, match="NO_CACHE"):
        PlaneStore.open(tmp_path / "cache")


def test_an_interrupted_build_leaves_no_cache_and_no_rubbish(manifest, tmp_path):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    folder = tmp_path / "cache"
    build_cache(manifest, CANVAS, folder)
    with pytest.raises(KeyboardInterrupt):
        build_cache(manifest, replace(CANVAS, size=40), folder, progress=stop)
    assert not (folder / "key.json").exists() and not list(folder.glob(".tmp*"))
    assert build_cache(manifest, CANVAS, folder).images([0]).shape == (1, 1, 32, 32)
