"""BIDS names of outputs: valid, of the right subject, and never invented."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pseudohealthy import archive
from pseudohealthy.errors import Fault
from pseudohealthy.layout import places
from pseudohealthy.phantoms import head, nifti


def test_names_of_a_session_with_entities():
    place = places(Path("out"), "sub-01_ses-b_acq-mprage_T1w", "bids")
    root = Path("out/derivatives/pseudohealthy")
    assert place.volumes == root / "sub-01" / "ses-b" / "anat"
    assert place.stems["pseudo_healthy"] == "sub-01_ses-b_acq-mprage_desc-pseudohealthy_T1w"
    assert place.stems["anomaly_map"] == "sub-01_ses-b_acq-mprage_desc-anomaly_T1w"
    assert place.stems["anomaly_mask"] == "sub-01_ses-b_acq-mprage_desc-anomalyT1w_mask"


def test_two_contrasts_of_one_subject_do_not_meet():
    one, other = (set(places(Path(), f"sub-01_{suffix}", "bids").stems.values()) for suffix in ("T1w", "FLAIR"))
    assert not one & other


@pytest.mark.parametrize("name", ["scan", "sub-01", "sub-01_bold", "sub-0/1_T1w", "T1w_sub-01"])
def test_a_bids_name_is_not_invented(name):
    with pytest.raises(Fault) as caught:
        places(Path(), name, "bids")
    assert (caught.value.code, caught.value.exit) == ("BIDS_NAME", 2)


@pytest.fixture
def derivative(ct_run, tmp_path) -> Path:
    values, _, affine = head(np.random.default_rng(0), shape=(4, 24, 24), lesion=0.3)
    for subject in ("01", "02"):
        folder = tmp_path / "in" / f"sub-{subject}" / "anat"
        folder.mkdir(parents=True)
        nifti(folder / f"sub-{subject}_T1w.nii.gz", values, affine)
    found = archive.detect(ct_run, [tmp_path / "in"], tmp_path / "out", layout="bids", device="cpu")
    assert found.exit == 0
    again = archive.detect(
        ct_run, [tmp_path / "in"], tmp_path / "out", layout="bids", device="cpu", resume_finished=True
    )
    assert [row["score"] for row in again.rows] == [row["score"] for row in found.rows]
    return tmp_path / "out" / "derivatives" / "pseudohealthy"


def test_the_derivative_says_who_made_it_and_every_image_from_what(derivative):
    said = json.loads((derivative / "dataset_description.json").read_text())
    assert said["DatasetType"] == "derivative" and said["GeneratedBy"][0]["Name"] == "pseudohealthy"
    images = sorted(derivative.rglob("*.nii.gz"))
    assert len(images) == 6
    for image in images:
        sidecar = json.loads(Path(str(image).replace(".nii.gz", ".json")).read_text())
        assert sidecar["Sources"] == [f"bids:raw:{image.name[:6]}/anat/{image.name[:6]}_T1w.nii.gz"]


def test_the_bids_validator_finds_no_error(derivative):
    program = shutil.which("bids-validator-deno") or shutil.which("bids-validator")
    if program is None:
        pytest.skip("bids-validator is not installed (pip install bids-validator-deno)")
    said = subprocess.run([program, str(derivative), "--json"], capture_output=True, text=True, timeout=300)
    issues = json.loads(said.stdout)["issues"]
    issues = issues["issues"] if isinstance(issues, dict) and "issues" in issues else issues["errors"]
    assert [i for i in issues if i.get("severity", "error") == "error"] == []
