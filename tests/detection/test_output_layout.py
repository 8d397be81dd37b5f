"""BIDS names of outputs: valid, of the right subject, and never invented."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from outside import executable, needs
from pseudohealthy.anomalies.phantoms import head, nifti
from pseudohealthy.detection import bids
from pseudohealthy.detection.output_layout import places
from pseudohealthy.errors import Fault
from pseudohealthy.workflows.detect import detect


def test_names_of_a_session_with_entities():
    place = places(Path("out"), "sub-01_ses-b_acq-mprage_T1w", "bids")
    root = Path("out/derivatives/pseudohealthy")
    assert place.volumes == root / "sub-01" / "ses-b" / "anat"
    assert place.stems["pseudo_healthy"] == "sub-01_ses-b_acq-mprage_desc-pseudohealthy_T1w"
    assert place.stems["anomaly_map"] == "sub-01_ses-b_acq-mprage_desc-anomaly_T1w"
    assert place.stems["anomaly_mask"] == "sub-01_ses-b_acq-mprage_desc-anomalyT1w_mask"


def test_two_contrasts_of_one_subject_do_not_meet():
    one, other = (
        set(places(Path(), f"sub-01_{suffix}", "bids").stems.values())
        for suffix in ("T1w", "FLAIR")
    )
    assert not one & other


@pytest.mark.parametrize("name", ["scan", "sub-01", "sub-01_bold", "sub-0/1_T1w", "T1w_sub-01"])
def test_a_bids_name_is_not_invented(name):
    with pytest.raises(Fault) as caught:
        places(Path(), name, "bids")
    assert (caught.value.code, caught.value.exit) == ("BIDS_NAME", 2)


def scans(root: Path, *names: str, said: dict | None = None) -> Path:
    """Small heads under BIDS names below a root, with its description where `said` is given."""
    values, _, affine = head(np.random.default_rng(0), shape=(4, 24, 24), lesion=0.3)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        nifti(root / name, values, affine)
    if said is not None:
        (root / "dataset_description.json").write_text(
            json.dumps({"Name": "x", "BIDSVersion": "1.10.0", **said})
        )
    return root


def described(folder: Path) -> dict[str, dict]:
    """The sidecars of a derivative by file name; every source in them is a file that is there."""
    links = json.loads((folder / "dataset_description.json").read_text()).get("DatasetLinks", {})
    found = {path.name: json.loads(path.read_text()) for path in folder.rglob("sub-*.json")}
    for said in found.values():
        for source in [
            *said.get("Sources", []),
            *([said["SpatialReference"]] if "SpatialReference" in said else []),
        ]:
            if not source.startswith("bids:"):
                continue
            _, link, path = source.split(":", 2)
            assert (folder / links[link] / path).is_file(), source
    return found


@pytest.fixture
def detected(ct_run, tmp_path) -> Callable[..., Path]:
    def run(*inputs: Path) -> Path:
        for again in (False, True):
            found = detect(
                ct_run,
                inputs,
                tmp_path / "out",
                layout="bids",
                device="cpu",
                kinds=("volumes", "json"),
                resume_finished=again,
            )
            assert found.exit == 0, found.rows
        return tmp_path / "out" / "derivatives"

    return run


@pytest.fixture
def derivative(detected, tmp_path) -> Path:
    names = [f"sub-0{k}/anat/sub-0{k}_T1w.nii.gz" for k in (1, 2)]
    return detected(scans(tmp_path / "in", *names, said={"License": "CC0"})) / "pseudohealthy"


def test_the_derivative_says_who_made_it_and_every_image_from_what(derivative):
    said = json.loads((derivative / "dataset_description.json").read_text())
    assert said["DatasetType"] == "derivative" and said["GeneratedBy"][0]["Name"] == "pseudohealthy"
    assert said["DatasetLinks"] == {"raw": "../../../in"}
    images, sidecars = sorted(derivative.rglob("*.nii.gz")), described(derivative)
    assert len(images) == len(sidecars) == 6
    for image in images:
        sidecar = sidecars[image.name.replace(".nii.gz", ".json")]
        assert sidecar["Sources"] == [f"bids:raw:{image.name[:6]}/anat/{image.name[:6]}_T1w.nii.gz"]
        assert ("SkullStripped" in sidecar) != image.name.endswith(
            "_mask.nii.gz"
        ) and not sidecar.get("SkullStripped")


def test_what_is_not_known_is_not_said(detected, tmp_path):
    """A .nii without a data set, a derivative that says more, and one that says nothing."""
    one = scans(tmp_path / "one", "sub-01_T1w.nii")
    other = scans(
        tmp_path / "other",
        "sub-02/anat/sub-02_desc-brain_T1w.nii.gz",
        "sub-03/anat/sub-03_desc-preproc_T1w.nii.gz",
        said={"DatasetType": "derivative"},
    )
    told = {"SkullStripped": True, "SpatialReference": "orig"}
    (other / "sub-02/anat/sub-02_desc-brain_T1w.json").write_text(json.dumps(told))
    folder = detected(one, other)
    first = described(folder / "pseudohealthy-one")
    second = described(folder / "pseudohealthy-other")
    assert first["sub-01_desc-anomaly_T1w.json"]["Sources"] == ["bids:one:sub-01_T1w.nii"]
    assert not any("SkullStripped" in said for said in first.values())
    assert [name for name, said in first.items() if "SpatialReference" in said] == [
        "sub-01_desc-anomalyT1w_mask.json"
    ]
    assert told.items() <= second["sub-02_desc-brainanomaly_T1w.json"].items()
    assert "SkullStripped" not in second["sub-03_desc-preprocpseudohealthy_T1w.json"]


def test_a_mask_lies_on_the_grid_of_its_source(derivative):
    said = described(derivative)["sub-02_desc-anomalyT1w_mask.json"]
    assert (
        said["SpatialReference"] == said["Sources"][0] == "bids:raw:sub-02/anat/sub-02_T1w.nii.gz"
    )


@pytest.mark.parametrize(
    "name, told, kind, skull, space",
    [
        ("sub-01/anat/sub-01_T1w.nii", {}, {}, False, None),
        ("sub-01/anat/sub-01_T1w.nii", {"T1w.json": {"SkullStripped": True}}, {}, True, None),
        ("sub-01/anat/sub-01_T1w.nii", {"T2w.json": {"SkullStripped": True}}, {}, False, None),
        (
            "sub-01/anat/sub-01_T1w.nii",
            {"acq-a_T1w.json": {"SkullStripped": True}},
            {},
            False,
            None,
        ),
        (
            "sub-01/anat/sub-01_acq-a_T1w.nii",
            {
                "T1w.json": {"SkullStripped": False},
                "sub-01/sub-01_T1w.json": {"SkullStripped": True},
            },
            {},
            True,
            None,
        ),
        (
            "sub-01/anat/sub-01_T1w.nii",
            {"T1w.json": {"SkullStripped": "yes"}},
            {"DatasetType": "derivative"},
            None,
            None,
        ),
        ("sub-01/anat/sub-01_space-MNI152Lin_T1w.nii", {}, {}, None, None),
        ("sub-01/anat/sub-01_desc-brain_T1w.nii", {}, {"DatasetType": "raw"}, None, None),
        ("derivatives/x/sub-01/anat/sub-01_T1w.nii", {}, {}, None, None),
        (
            "sub-01/anat/sub-01_T1w.nii",
            {"T1w.json": {"SpatialReference": "bids::sub-01/a.nii"}},
            {},
            False,
            "bids:in:sub-01/a.nii",
        ),
        (
            "sub-01/anat/sub-01_T1w.nii",
            {"T1w.json": {"SpatialReference": "bids:other:sub-01/a.nii"}},
            {},
            False,
            None,
        ),
        (
            "sub-01/anat/sub-01_T1w.nii",
            {"T1w.json": {"SpatialReference": {"VolumeReference": "orig"}}},
            {},
            False,
            {"VolumeReference": "orig"},
        ),
    ],
)
def test_a_fact_is_what_the_nearest_sidecar_says(tmp_path, name, told, kind, skull, space):
    path = tmp_path / name
    root = path.parents[2]
    path.parent.mkdir(parents=True)
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": "x", "BIDSVersion": "1.10.0", **kind})
    )
    for where, said in told.items():
        (root / where).write_text(json.dumps(said))
    expected = {"SkullStripped": skull, "SpatialReference": space}
    assert bids.facts(path, root, "in") == {
        key: value for key, value in expected.items() if value is not None
    }


def test_one_subject_of_two_sites_is_two(detected, tmp_path):
    name = "sub-01/anat/sub-01_T1w.nii.gz"
    folder = detected(
        *(scans(tmp_path / place, name, said={}) for place in ("site-1", "site-2", "x/site-2"))
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "pseudohealthy-site1",
        "pseudohealthy-site22",
        "pseudohealthy-site23",
    ]
    for place in folder.iterdir():
        assert len(described(place)) == 3
    rows = (tmp_path / "out" / "findings.csv").read_text()
    assert "site-1-sub-01-anat-sub-01_T1w" in rows


def test_a_second_site_does_not_go_on_in_the_folder_of_the_first(detected, ct_run, tmp_path):
    first, second = (
        scans(tmp_path / place, "sub-01/anat/sub-01_T1w.nii.gz", said={})
        for place in ("one", "other")
    )
    folder = detected(first)
    with pytest.raises(Fault) as caught:
        detect(
            ct_run, [second], tmp_path / "out", layout="bids", device="cpu", resume_finished=True
        )
    assert (caught.value.code, caught.value.exit) == ("OUTPUT_NOT_EMPTY", 6)
    assert described(folder / "pseudohealthy")["sub-01_desc-anomaly_T1w.json"]["Sources"]


def test_two_files_of_one_name_do_not_meet(detected, tmp_path):
    names = ["sub-01/anat/sub-01_T1w.nii", "sub-01/anat/sub-01_T1w.nii.gz"]
    sidecars = described(detected(scans(tmp_path / "in", *names, said={})) / "pseudohealthy")
    assert len(sidecars) == 6
    assert {said["Sources"][0] for said in sidecars.values()} == {
        f"bids:raw:{name}" for name in names
    }


def test_a_source_in_a_zip_is_not_linked(detected, tmp_path):
    folder = scans(tmp_path / "in", "sub-01_T1w.nii.gz")
    shutil.make_archive(str(tmp_path / "packed"), "zip", folder)
    derivative = detected(tmp_path / "packed.zip") / "pseudohealthy"
    assert not any("Sources" in said for said in described(derivative).values())
    assert "DatasetLinks" not in json.loads((derivative / "dataset_description.json").read_text())


@needs("bids-validator-deno")
def test_the_bids_validator_finds_no_error(derivative):
    said = subprocess.run(
        [str(executable("bids-validator-deno")), str(derivative), "--json"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    issues = json.loads(said.stdout)["issues"]
    issues = (
        issues["issues"] if isinstance(issues, dict) and "issues" in issues else issues["errors"]
    )
    assert [i for i in issues if i.get("severity", "error") == "error"] == []
