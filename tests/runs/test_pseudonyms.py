"""A run may tell no ids; whoever has the salt beside it can still ask whether a patient was trained
on."""

from __future__ import annotations

import shutil
import stat

import pytest

from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Case
from pseudohealthy.errors import Fault
from pseudohealthy.evaluation import leaks
from pseudohealthy.runs.pseudonyms import namer, salt_file
from pseudohealthy.runs.run import Run
from pseudohealthy.workflows.train import resume, train
from pseudohealthy.workflows.verify import verify


@pytest.fixture(scope="module")
def secret(pictures, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("secret") / "run"
    return train(tiny("training.steps=1"), pictures, folder, device="cpu", pseudonymise=True)


def refuse(run: Run, chosen: list[Case], allow: bool = False) -> list[str]:
    return leaks.refuse(run, chosen, what="test", splits=("train", "val"), allow=allow)


def test_no_id_stands_in_any_file_of_the_run(secret, pictures):
    ids = {name for case in load(pictures) for name in (case.case_id, case.patient_id)}
    for path in secret.folder.iterdir():
        assert not [name for name in ids if name.encode() in path.read_bytes()], path.name
    assert (secret.folder / "split.csv").read_text().count("patient-") == len(load(pictures))
    salt = salt_file(secret.folder)
    assert salt.parent == secret.folder.parent and stat.S_IMODE(salt.stat().st_mode) == 0o600
    assert "pseudonyms" in (secret.folder / "MODEL_CARD.md").read_text()


def test_a_leak_is_still_found(secret, pictures):
    manifest = load(pictures)
    assert refuse(secret, list(manifest.split("test"))) == []
    with pytest.raises(Fault, match="LEAK"):
        refuse(secret, list(manifest.split("val")))
    assert verify(secret.folder, device="cpu").exit == 0


def test_without_the_salt_nothing_is_guessed(secret, pictures, tmp_path):
    moved = Run.open(shutil.copytree(secret.folder, tmp_path / "moved"))
    test = list(load(pictures).split("test"))
    with pytest.raises(Fault, match="--allow-leak") as caught:
        refuse(moved, test)
    assert caught.value.code == "SALT"
    assert refuse(moved, test, allow=True)[0].startswith("LEAK")
    with pytest.raises(Fault, match="SALT"):
        resume(moved.folder, data=pictures, steps=2, device="cpu")
    (tmp_path / "moved.salt").write_text("another\n")
    with pytest.raises(Fault, match="another"):
        namer(moved)
    shutil.copy(salt_file(secret.folder), tmp_path / "moved.salt")
    assert refuse(moved, test) == []


def test_runs_of_other_salts_cannot_be_matched(secret, pictures, tiny, tmp_path):
    other = train(
        tiny("training.steps=1"), pictures, tmp_path / "b", device="cpu", pseudonymise=True
    )
    lines = [set((run.folder / "split.csv").read_text().splitlines()) for run in (secret, other)]
    assert len(lines[0] & lines[1]) == 1  # the header


def test_a_run_of_version_01_knows_its_dicom_patients_by_their_folders(tmp_path):
    (tmp_path / "recipe.toml").write_text('name = "x"\n[restorer]\nname = "identity"\n')
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "split.csv").write_text("case_id,patient_id,split,label\nSURNAME,SURNAME,train,0\n")
    case = Case(
        "series-1", "series-1", "test", 0, "test/good/SURNAME", root=tmp_path, known_as="SURNAME"
    )
    with pytest.raises(Fault, match="LEAK") as caught:
        refuse(Run.open(tmp_path), [case])
    assert "SURNAME" not in str(caught.value)
