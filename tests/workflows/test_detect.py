"""`detect` over a folder in which many things are wrong: each case stands alone, and every input
has its row."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from blobs import picture
from pseudohealthy import io
from pseudohealthy.anomalies.phantoms import dicom_series, head, nifti
from pseudohealthy.detection import worker
from pseudohealthy.errors import Fault
from pseudohealthy.workflows.detect import detect

pytestmark = pytest.mark.usefixtures("unpainted")


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with open(folder / "findings.csv", newline="", encoding="utf-8") as file:
        return {row["case_id"]: row for row in csv.DictReader(file)}


def png(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(np.random.default_rng(seed))[0]).save(path)
    return path


def truncate(path: Path, share: float = 0.6) -> Path:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


BAD_PICTURES = {
    "truncated": lambda path: truncate(png(path)),
    "empty": lambda path: path.touch(),
    "constant": lambda path: Image.fromarray(np.full((20, 20), 7, np.uint8)).save(path),
    "not-a-picture": lambda path: path.write_text("<html>not found</html>"),
    "tiny": lambda path: Image.fromarray(np.eye(4, dtype=np.uint8)).save(path),
}
CODES = {"truncated": "TRUNCATED", "constant": "CONSTANT_IMAGE", "tiny": "TOO_SMALL"}


def volume(path: Path, change=None, seed: int = 0) -> Path:
    values, _, affine = head(np.random.default_rng(seed), shape=(4, 24, 24))
    path.parent.mkdir(parents=True, exist_ok=True)
    return nifti(path, values if change is None else change(values), affine)


def four_dimensional(path: Path) -> None:
    values = np.random.default_rng(0).random((24, 24, 4, 3))
    nib.save(nib.Nifti1Image(values.astype(np.float32), np.diag([2.0, 2, 5, 1])), path)


def with_nan(values: np.ndarray) -> np.ndarray:
    values[:, :12] = np.nan
    return values


BAD_VOLUMES = {
    "truncated": lambda path: truncate(volume(path)),
    "empty": lambda path: path.touch(),
    "nan": lambda path: volume(path, with_nan),
    "constant": lambda path: volume(path, lambda v: np.full_like(v, 3)),
    "four-d": four_dimensional,
    "lfs": lambda path: path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    ),
}
CODES |= {"nan": "NONFINITE", "four-d": "IS_4D"}


@pytest.mark.parametrize("bad", BAD_PICTURES)
def test_a_bad_picture_fails_alone(tiny_run, tmp_path, capsys, bad):
    for number in range(2):
        png(tmp_path / "in" / f"good-{number}.png", number)
    BAD_PICTURES[bad](tmp_path / "in" / f"{bad}.png")
    found = detect(tiny_run, [tmp_path / "in"], tmp_path / "out", device="cpu")
    check_one_failed(found, tmp_path / "out", bad, capsys.readouterr().err)


@pytest.mark.parametrize("bad", BAD_VOLUMES)
def test_a_bad_volume_fails_alone(ct_run, tmp_path, capsys, bad):
    for number in range(2):
        volume(tmp_path / "in" / f"good-{number}.nii.gz", seed=number)
    BAD_VOLUMES[bad](tmp_path / "in" / f"{bad}.nii.gz")
    found = detect(ct_run, [tmp_path / "in"], tmp_path / "out", device="cpu")
    check_one_failed(found, tmp_path / "out", bad, capsys.readouterr().err)


def check_one_failed(found: worker.Detections, out: Path, bad: str, said: str) -> None:
    assert found.exit == 4
    written = rows(out)
    assert [row["status"] for row in written.values()].count("failed") == 1
    assert written[bad]["status"] == "failed" and written[bad]["score"] == ""
    for good in ("good-0", "good-1"):
        assert written[good]["status"] in ("ok", "warn")
        assert (out / good / "case.json").is_file()
    assert not (out / bad).exists()
    lines = [line for line in said.splitlines() if line.startswith("error[")]
    assert len(lines) == 1 and f"case={bad}:" in lines[0] and "; " in lines[0], said
    if bad in CODES:
        assert lines[0].startswith(f"error[{CODES[bad]}]")
    assert str(out.parent) not in lines[0], "no path of the machine"


def test_a_truncated_dicom_slice_fails_its_series_alone(ct_run, tmp_path):
    for number in range(2):
        values, _, _ = head(np.random.default_rng(number), shape=(4, 24, 24))
        files = dicom_series(tmp_path / "in" / f"series-{number}", values, seed=number)
    truncate(files[2])
    found = detect(ct_run, [tmp_path / "in"], tmp_path / "out", device="cpu")
    assert found.exit == 4 and [row["status"] for row in found.rows].count("failed") == 1
    (failed,) = (row for row in found.rows if row["status"] == "failed")
    order = sorted(path.name for path in files)
    assert f"file {order.index(files[2].name) + 1}" in failed["warnings"], failed["warnings"]
    assert (
        files[2].name not in failed["warnings"]
        and "PHANTOM" not in (tmp_path / "out" / "findings.csv").read_text()
    )


def test_a_few_nan_voxels_are_a_warning(ct_run, tmp_path):
    def few(values: np.ndarray) -> np.ndarray:
        values[0, 0, :3] = np.nan
        return values

    volume(tmp_path / "in" / "a.nii.gz", few)
    found = detect(ct_run, [tmp_path / "in"], tmp_path / "out", device="cpu")
    assert (
        found.exit == 0
        and found.rows[0]["status"] == "warn"
        and "NONFINITE n=3" in found.rows[0]["warnings"]
    )


def test_when_everything_fails_the_exit_code_says_no_usable_input(tiny_run, tmp_path):
    BAD_PICTURES["truncated"](tmp_path / "a.png")
    found = detect(tiny_run, [tmp_path / "a.png"], tmp_path / "out", device="cpu")
    assert found.exit == 3 and rows(tmp_path / "out")["a"]["status"] == "failed"
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.parametrize(
    "what, code", [("absent", "NOT_FOUND"), ("empty-folder", "NO_INPUT"), ("only-text", "NO_INPUT")]
)
def test_nothing_to_read_is_said_before_anything_is_written(tiny_run, tmp_path, what, code):
    if what != "absent":
        (tmp_path / what).mkdir()
    if what == "only-text":
        (tmp_path / what / "readme.txt").write_text("nothing here")
    with pytest.raises(Fault) as caught:
        detect(tiny_run, [tmp_path / what], tmp_path / "out", device="cpu")
    assert (caught.value.code, caught.value.exit) == (code, 3)
    assert not (tmp_path / "out").exists()


def test_the_output_folder_must_be_empty_or_given_up(tiny_run, tmp_path):
    png(tmp_path / "in" / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").write_text("keep")
    with pytest.raises(Fault) as caught:
        detect(tiny_run, [tmp_path / "in"], tmp_path / "out", device="cpu")
    assert (caught.value.code, caught.value.exit) == ("OUTPUT_NOT_EMPTY", 6)
    found = detect(tiny_run, [tmp_path / "in"], tmp_path / "out", device="cpu", overwrite=True)
    assert found.exit == 0 and (tmp_path / "out" / "thesis.docx").read_text() == "keep"


def test_a_file_in_the_place_of_the_output_is_refused(tiny_run, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(Fault) as caught:
        detect(tiny_run, [png(tmp_path / "a.png")], tmp_path / "out", device="cpu")
    assert (caught.value.code, caught.value.exit) == ("OUTPUT", 6)
    with pytest.raises(Fault) as caught:
        detect(tiny_run, [tmp_path / "a.png"], tmp_path / "out" / "deeper", device="cpu")
    assert caught.value.exit == 6


def test_a_disk_that_fills_up_ends_with_exit_6_and_no_half_written_file(
    tiny_run, tmp_path, monkeypatch
):
    import pseudohealthy.io.raster as raster

    for number in range(3):
        png(tmp_path / "in" / f"{number}.png", number)
    write, calls = raster.write, 0

    def full(*given, **more):
        nonlocal calls
        calls += 1
        if calls > 4:
            from pseudohealthy.io.atomic import atomic

            with atomic(given[2] / "anomaly_map.tiff") as path:
                path.write_bytes(b"half")
                raise OSError(28, "No space left on device")
        return write(*given, **more)

    monkeypatch.setattr(raster, "write", full)
    with pytest.raises(Fault) as caught:
        detect(tiny_run, [tmp_path / "in"], tmp_path / "out", device="cpu")
    assert caught.value.exit == 6 and "No space left" in str(caught.value)
    assert [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".tmp")] == []


def test_not_enough_memory_for_one_case_is_that_cases_failure(tiny_run, tmp_path, monkeypatch):
    for number in range(3):
        png(tmp_path / "in" / f"{number}.png", number)
    from pseudohealthy.detection.detector import Detector

    restore = Detector.restore

    def hungry(self, pairs):
        if any(scan.name == "1" for scan, _ in pairs):
            raise MemoryError
        return restore(self, pairs)

    monkeypatch.setattr(Detector, "restore", hungry)
    found = detect(tiny_run, [tmp_path / "in"], tmp_path / "out", device="cpu")
    assert found.exit == 4
    assert {row["case_id"]: row["status"] for row in found.rows} == {
        "0": "ok",
        "1": "failed",
        "2": "ok",
    }
    assert "OUT_OF_MEMORY" in found.rows[1]["warnings"] and found.faults[0].exit == 7


def test_a_bug_in_one_case_is_that_cases_failure(tiny_run, tmp_path, monkeypatch, capsys):
    for number in range(3):
        png(tmp_path / "in" / f"{number}.png", number)
    from pseudohealthy import io

    read = io.read
    monkeypatch.setattr(
        io, "read", lambda source, **how: 1 / 0 if source.case_id == "1" else read(source, **how)
    )
    found = detect(tiny_run, [tmp_path / "in"], tmp_path / "out", device="cpu")
    assert found.exit == 4 and [row["status"] for row in found.rows] == ["ok", "failed", "ok"]
    assert "error[INTERNAL] case=1: ZeroDivisionError" in capsys.readouterr().err


def test_rows_stand_in_the_order_of_the_inputs_and_what_was_skipped_is_listed(tiny_run, tmp_path):
    for name in ("b.png", "a.png", "c.png"):
        png(tmp_path / "in" / name, ord(name[0]))
    BAD_PICTURES["truncated"](tmp_path / "in" / "ab.png")
    (tmp_path / "in" / "notes.scan").write_text("x")
    found = detect(tiny_run, [tmp_path / "in"], tmp_path / "out", device="cpu")
    assert list(rows(tmp_path / "out")) == ["a", "ab", "b", "c", "notes.scan"]
    assert found.rows[-1]["status"] == "skipped" and found.rows[-1]["warnings"]
    said = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert [row["case_id"] for row in said["findings"]] == ["a", "ab", "b", "c", "notes.scan"]
    assert said["made"]["run"] == "tiny" and len(said["made"]["weights_sha256"]) == 64


def test_the_columns_are_those_of_the_contract(tiny_run, tmp_path):
    png(tmp_path / "in" / "a.png")
    detect(tiny_run, [tmp_path / "in"], tmp_path / "out", device="cpu")
    (row,) = rows(tmp_path / "out").values()
    assert list(row) == [
        "case_id",
        "score",
        "score_sd",
        "healthy_percentile",
        "healthy_cases",
        "volume_ml_above",
        "n_regions",
        "threshold",
        "threshold_source",
        "status",
        "warnings",
        "seconds",
    ]
    assert (
        float(row["score"]) >= 0
        and row["threshold_source"] == "healthy-quantile"
        and row["volume_ml_above"] == ""
    )


def test_references_by_case_reach_the_case_and_another_reference_is_another_request(
    tiny_run, tmp_path
):
    png(tmp_path / "in" / "a.png")
    truth = np.zeros(io.read(tmp_path / "in" / "a.png").voxels[0].shape, bool)
    truth[0, 4:9, 4:9] = True
    said = []
    for references in ({"a": truth}, {"a": ~truth}, None):
        detect(
            tiny_run,
            [tmp_path / "in"],
            tmp_path / "out",
            device="cpu",
            truths=references,
            overwrite=True,
        )
        said.append(json.loads((tmp_path / "out" / "a" / "case.json").read_text()))
    assert said[0]["truth"]["lesions"] == 1 and "truth" not in said[2]
    assert len({one["request_sha256"] for one in said}) == 3


def test_a_name_that_a_spreadsheet_would_run_is_defused(tiny_run, tmp_path):
    png(tmp_path / "in" / "=cmd.png")
    detect(tiny_run, [tmp_path / "in"], tmp_path / "out", device="cpu")
    assert not any(name.startswith("=") for name in rows(tmp_path / "out"))


def test_kinds_levels_and_threshold(tiny_run, tmp_path):
    png(tmp_path / "in" / "a.png")
    detect(
        tiny_run,
        [tmp_path / "in"],
        tmp_path / "out",
        kinds=["json"],
        threshold="0.125",
        levels=1,
        device="cpu",
    )
    assert [path.name for path in (tmp_path / "out" / "a").iterdir()] == ["case.json"]
    said = json.loads((tmp_path / "out" / "a" / "case.json").read_text())
    assert said["threshold"] == 0.125 and said["made"]["settings"] == ["restorer.walk.calls=1"]
    assert (tmp_path / "out" / "report.html").is_file()


def test_levels_of_a_method_that_has_none_are_refused_by_name(ct_run, tmp_path):
    volume(tmp_path / "in" / "a.nii.gz")
    with pytest.raises(Fault) as caught:
        detect(ct_run, [tmp_path / "in"], tmp_path / "out", levels=5, device="cpu")
    assert caught.value.exit == 2 and "does not apply to 'identity'" in str(caught.value)


def test_what_it_writes_is_not_read_as_input_the_next_time(tiny_run, tmp_path):
    png(tmp_path / "in" / "a.png")
    detect(tiny_run, [tmp_path / "in"], tmp_path / "in" / "out", device="cpu")
    found = detect(tiny_run, [tmp_path / "in"], tmp_path / "out2", device="cpu")
    assert [row["case_id"] for row in found.rows if row["status"] != "skipped"] == ["a"]


def test_cases_say_the_same_alone_and_together(tiny_run, tmp_path):
    for number in range(5):
        png(tmp_path / "in" / f"{number}.png", number)
    together = detect(tiny_run, [tmp_path / "in"], tmp_path / "out", device="cpu", batch=3)
    alone = detect(tiny_run, [tmp_path / "in" / "4.png"], tmp_path / "one", device="cpu")
    # Auto precision may be bf16.
    assert alone.rows[0]["score"] == pytest.approx(together.rows[4]["score"], abs=1e-3)


def test_an_interrupted_detection_keeps_a_row_for_every_finished_case(
    tiny_run, pictures, tmp_path, monkeypatch
):
    """Ctrl-C after the second case: two rows, and the interruption goes on to the program."""
    from pseudohealthy.detection import finding

    saved, done = finding.Finding.save, []

    def save(self, *arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(self.case_id)
        return saved(self, *arguments)

    monkeypatch.setattr(finding.Finding, "save", save)
    with pytest.raises(KeyboardInterrupt):
        detect(tiny_run, [pictures], tmp_path / "out", batch=1)
    rows = (tmp_path / "out" / "findings.csv").read_text().splitlines()
    assert len(done) == 2 and sum(name in line for line in rows for name in done) == 2
