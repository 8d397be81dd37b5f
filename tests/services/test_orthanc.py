"""A scan from an archive, and findings back into it: Orthanc, started here, that answers this
machine alone."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from outside import executable, needs
from pseudohealthy.anomalies.phantoms import dicom_series, head
from pseudohealthy.workflows.detect import detect

KINDS = ("dicom-seg", "dicom-map", "dicom-sc", "json")


class Orthanc:
    """Its REST interface: https://orthanc.uclouvain.be/book/users/rest.html"""

    def __init__(self, port: int):
        self.home = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.home + path, timeout=60) as answer:
            return answer.read()

    def ask(self, path: str) -> Any:
        return json.loads(self.get(path))

    def send(self, path: Path) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.home}/instances", data=path.read_bytes())
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())


@pytest.fixture
def orthanc(tmp_path) -> Iterator[Orthanc]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "StorageDirectory": str(tmp_path / "storage"),
        "IndexDirectory": str(tmp_path / "storage"),
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "Plugins": [],
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    with (tmp_path / "log.txt").open("w") as log:
        child = subprocess.Popen(
            [str(executable("Orthanc")), str(tmp_path / "orthanc.json")], stdout=log, stderr=log
        )
        try:
            archive, end = Orthanc(port), time.monotonic() + 60
            while True:
                try:
                    archive.ask("/system")
                    break
                except (urllib.error.URLError, ConnectionError):
                    said = (tmp_path / "log.txt").read_text()[-2000:]
                    assert child.poll() is None and time.monotonic() < end, said
                    time.sleep(0.1)
            yield archive
        finally:
            child.terminate()
            child.wait(30)


@needs("Orthanc")
def test_a_study_goes_from_the_archive_through_detect_and_back(orthanc, ct_run, tmp_path):
    volume, _, _ = head(np.random.default_rng(3), shape=(6, 32, 32))
    for path in dicom_series(tmp_path / "scanner", volume):
        assert orthanc.send(path)["Status"] == "Success"
    (study,) = orthanc.ask("/studies")
    (tmp_path / "study.zip").write_bytes(orthanc.get(f"/studies/{study}/archive"))
    assert len(zipfile.ZipFile(io.BytesIO((tmp_path / "study.zip").read_bytes())).namelist()) >= 6

    detect(ct_run, [tmp_path / "study.zip"], tmp_path / "found", kinds=KINDS, device="cpu")
    made = {path.name: path for path in (tmp_path / "found").rglob("*.dcm")}
    assert set(made) == {"anomaly_mask.dcm", "anomaly_map.dcm", "panel.dcm"}
    stored = {name: orthanc.send(path) for name, path in made.items()}
    assert {answer["Status"] for answer in stored.values()} == {"Success"}

    # One patient, one study, a series for each object beside the scan's own.
    assert orthanc.ask("/studies") == [study] and len(orthanc.ask("/patients")) == 1
    series = [orthanc.ask(f"/series/{name}") for name in orthanc.ask(f"/studies/{study}")["Series"]]
    modalities = sorted(one["MainDicomTags"]["Modality"] for one in series)
    assert modalities == sorted(["CT", *(pydicom.dcmread(path).Modality for path in made.values())])
    assert "SEG" in modalities
    for name, path in made.items():
        identifier = stored[name]["ID"]
        assert orthanc.get(f"/instances/{identifier}/file") == path.read_bytes()
        tags = orthanc.ask(f"/instances/{identifier}/simplified-tags")
        assert (
            tags["SOPInstanceUID"] == pydicom.dcmread(path).SOPInstanceUID
            and tags["PatientID"] == "PHANTOM"
        )

    # It shows the picture that we drew.
    capture = pydicom.dcmread(made["panel.dcm"])
    shown = np.asarray(
        Image.open(
            io.BytesIO(orthanc.get(f"/instances/{stored['panel.dcm']['ID']}/preview"))
        ).convert("RGB")
    )
    np.testing.assert_array_equal(shown, capture.pixel_array)
    # And every object is still what it was when the study leaves the archive again.
    with zipfile.ZipFile(io.BytesIO(orthanc.get(f"/studies/{study}/archive"))) as again:
        kept = {again.read(name) for name in again.namelist()}
    assert {path.read_bytes() for path in made.values()} <= kept
