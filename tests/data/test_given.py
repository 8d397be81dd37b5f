"""Images that a program holds: as a manifest, into a run, into figures, and taken up again."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

import pseudohealthy as ph
from pseudohealthy.errors import Fault

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """(20, 16, 16), a soft disc each."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[-1:1:16j, -1:1:16j]
    disc = np.clip(1.2 - np.hypot(rows, columns), 0, 1)
    return (disc * rng.uniform(0.6, 1, (20, 1, 1)) + 0.02 * rng.random((20, 16, 16))).astype("f4")


@pytest.fixture(scope="module")
def marks(images) -> np.ndarray:
    masks = np.zeros(images.shape, bool)
    masks[::2, 5:9, 5:9] = True
    return masks


def test_an_array_is_as_many_healthy_patients_four_to_train_for_one_to_validate(images):
    found = ph.manifest(images)
    splits = [case.split for case in found]
    assert splits.count("train") == 16 and splits.count("val") == 4
    assert {case.label for case in found} == {0} and len(found.patients) == 20
    assert found.sha256 == ph.manifest(torch.from_numpy(images)).sha256
    assert found.sha256 != ph.manifest(images + 0.01).sha256


def test_masks_labels_patients_and_splits_stand_beside_their_image(images, marks):
    found = list(ph.manifest(images, marks, patients=[k // 2 for k in range(20)], split="test"))
    assert [case.label for case in found[:3]] == [1, 0, 1] and found[3].patient_id == "1"
    assert all(case.mask for case in found) and {case.split for case in found} == {"test"}
    pairs = [(image, int(k % 2), "p") for k, image in enumerate(images)]
    assert [case.label for case in ph.manifest(pairs)][:2] == [0, 1]
    assert ph.manifest(pairs).patients == ["p"]
    several = ph.manifest(images[:2], split=["train", "val"])
    assert [case.split for case in several] == ["train", "val"]


def test_images_of_other_libraries_and_files_keep_their_place(tmp_path, images):
    affine = np.diag([2.0, 2, 3, 1])
    volume = nib.Nifti1Image(np.stack([images[0]] * 4, 2), affine)
    nib.save(volume, tmp_path / "v.nii.gz")
    Image.fromarray((255 * images[0]).clip(0, 255).astype(np.uint8)).save(tmp_path / "p.png")
    entries = [
        volume,
        tmp_path / "v.nii.gz",
        str(tmp_path / "p.png"),
        Image.open(tmp_path / "p.png"),
    ]
    cases = list(ph.manifest(entries, split="test"))
    from pseudohealthy.io import read_image

    scans = [read_image(case.image, case.root) for case in cases]
    assert scans[0].spacing == scans[1].spacing == (3, 2, 2)
    assert cases[2].image == cases[3].image
    scans[2].voxels[:] = 0
    assert read_image(cases[2].image, cases[2].root).voxels.any(), "what is read may be changed"


@pytest.mark.parametrize(
    ("data", "how", "message"),
    [
        (np.zeros((4, 16, 16, 3)), {}, "transpose(0, 3, 1, 2)"),
        (np.zeros((16, 16)), {}, "a list of images"),
        ([], {}, "no images"),
        (np.ones((2, 16, 16)), {"masks": [None]}, "1 masks for 2 images"),
        (np.ones((2, 16, 16)), {"labels": [0, 3]}, "label 3 of image 1"),
        (np.ones((2, 16, 16)), {"split": "tset"}, "split 'tset'"),
        ([np.ones((16, 16)), "nowhere.png"], {}, "nowhere.png"),
        ([np.ones((16, 16)), {"a": 1}], {}, "image 1"),
    ],
)
def test_what_is_no_set_of_images_is_refused_by_name(data, how, message):
    with pytest.raises(Fault) as fault:
        ph.manifest(data, **how)
    assert message in str(fault.value)


@pytest.fixture(scope="module")
def trained(images, tiny, tmp_path_factory):
    """Arrays in, a run out; every step and validation told."""
    told: dict[str, list] = {"steps": [], "entries": []}
    run = ph.train(
        tiny("training.steps=4", "training.validate=2"),
        images,
        tmp_path_factory.mktemp("arrays") / "run",
        device="cpu",
        on_step=lambda step, losses: told["steps"].append((step, sorted(losses))),
        on_validation=lambda entry: told["entries"].append(entry["step"]),
    )
    return run, told


def test_arrays_train_a_run_and_its_steps_are_told(trained):
    run, told = trained
    assert [step for step, _ in told["steps"]] == [1, 2, 3, 4] and told["entries"] == [2, 4]
    assert run.record["data"] == "in memory" and run.record["status"] == "finished"
    assert (run.folder / "threshold.json").is_file()


def test_a_function_that_returns_true_ends_the_training(images, tiny, tmp_path):
    recipe = tiny("training.steps=50", "training.validate=2")
    stop = {"on_step": lambda step, losses: step == 3}
    run = ph.train(recipe, images, tmp_path / "a", device="cpu", **stop)
    assert run.record["steps"] == 3 and run.record["status"] == "finished"
    run = ph.train(recipe, images, tmp_path / "b", device="cpu", on_validation=lambda entry: True)
    assert run.record["steps"] == 2


def test_a_run_goes_on_with_the_same_arrays_and_with_no_others(images, tiny, tmp_path):
    from pseudohealthy.workflows.train import resume

    run = ph.train(tiny("training.steps=2"), images, tmp_path / "run", device="cpu")
    with pytest.raises(Fault, match="not where they were"):
        resume(run.folder, steps=3, device="cpu")
    with pytest.raises(Fault, match="not the one this run began with"):
        resume(run.folder, data=images + 0.1, steps=3, device="cpu")
    assert resume(run.folder, data=images, steps=3, device="cpu").record["steps"] == 3


def test_a_detector_is_measured_on_arrays_with_their_masks(trained, images, marks):
    run, _ = trained
    detector = ph.load(run.folder, device="cpu")
    data = ph.manifest(images + marks, marks, split="test")
    with pytest.raises(Fault, match="LEAK"):
        ph.evaluate(detector, ph.manifest(images, split="test"), device="cpu")
    result = ph.evaluate(detector, data, device="cpu", allow_leak=True)
    assert any(r.metric == "voxel_average_precision_pooled" for r in result.records)
    assert len({row["case_id"] for row in result.rows}) == 20


def test_images_go_with_the_last_case_that_lists_them(images):
    import gc

    from pseudohealthy.io import held

    name = str(next(iter(ph.manifest(images * 0.5, split="test"))).image)
    gc.collect()
    with pytest.raises(Fault, match="by another process"):
        held.held(name)


def test_weights_beside_a_detector_are_refused(trained, images):
    detector = ph.load(trained[0].folder, device="cpu")
    with pytest.raises(Fault, match="weights beside a detector"):
        ph.evaluate(detector, ph.manifest(images, split="test"), weights="last")
