from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pseudohealthy import datasets, io
from pseudohealthy.anomalies.phantoms import lesion
from pseudohealthy.data.load import load
from pseudohealthy.errors import Fault


@pytest.fixture
def slices(tmp_path):
    """Twenty round heads of 96 px, one slice each, in IXI's slice layout."""
    folder, rng = tmp_path / "ixi" / "png", np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows, columns = np.indices((96, 96)) - 48
    lines = ["file,subject"]
    for number in range(20):
        brain = (np.hypot(rows, columns) < 40) * (0.5 + 0.1 * rng.random((96, 96)))
        Image.fromarray((255 * brain).astype(np.uint8)).save(folder / f"s{number:02d}.png")
        lines.append(f"s{number:02d}.png,IXI{number:03d}")
    (tmp_path / "ixi" / "index.csv").write_text("\n".join(lines))
    return tmp_path / "ixi"


def test_every_second_test_subject_has_a_lesion_and_its_true_twin(slices, tmp_path):
    datasets.prepare("ixi-lesions", slices, tmp_path / "out", fractions=(0.5, 0.1, 0.4))
    manifest = load(tmp_path / "out")
    test = list(manifest.split("test"))
    assert len(test) == 8 and sum(case.label for case in test) == 4
    assert all(case.label == 0 for case in manifest if case.split != "test")
    for case in test:
        if not case.label:
            continue
        image, twin = (io.read_image(path, case.root) for path in (case.image, case.extra["twin"]))
        mask = io.read_mask(case.mask, case.root, image)
        changed = np.abs(image.voxels[0] - twin.voxels[0])
        assert mask.any() and changed[mask].mean() > 20 * changed[~mask].mean()
        original = Image.open(slices / "png" / f"{case.case_id}.png")
        assert np.array_equal(twin.voxels[0, 0], np.asarray(original))


def test_validation_subjects_may_have_lesions_for_sweeps(slices, tmp_path):
    settings = datasets.options("ixi-lesions", ['lesions_in=["val"]'])
    datasets.prepare("ixi-lesions", slices, tmp_path / "out", fractions=(0.5, 0.3, 0.2), **settings)
    manifest = load(tmp_path / "out")
    assert (
        sum(case.label for case in manifest.split("val")) == 3
        and len(list(manifest.split("val"))) == 6
    )
    assert not any(case.label for case in manifest if case.split != "val")
    with pytest.raises(Fault, match="lesions_in is train"):
        datasets.prepare("ixi-lesions", slices, tmp_path / "no", lesions_in=("train",))


def test_the_same_seed_draws_the_same_lesions(slices, tmp_path):
    for name in ("a", "b"):
        datasets.prepare("ixi-lesions", slices, tmp_path / name, seed=3)
    pictures = sorted(
        path.relative_to(tmp_path / "a") for path in (tmp_path / "a" / "lesions").iterdir()
    )
    assert pictures
    for path in pictures:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_a_lesion_stays_in_the_brain_and_in_range():
    rng, inside = np.random.default_rng(0), np.zeros((64, 64), bool)
    inside[10:50, 12:40] = True
    for _ in range(50):
        changed, mask = lesion(np.full((64, 64), 0.6), inside, rng)
        assert mask.any() and not (mask & ~inside).any()
        assert changed.min() >= 0 and changed.max() <= 1 and (changed[~inside] == 0.6).all()
        assert np.abs(changed[mask] - 0.6).mean() > 0.06
    with pytest.raises(ValueError, match="no place"):
        lesion(np.zeros((8, 8)), np.zeros((8, 8), bool), rng)
