"""The app takes uploads without trusting them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from app_client import OURS, post

from pseudohealthy.serve import uploads


def placed(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def test_an_upload_becomes_a_job_under_a_random_name(idle, tmp_path):
    id = post(idle, "../../evil/scan 1.png", "..\\..\\b.png", "/etc/passwd", data=b"bytes").json()[
        "id"
    ]
    sent = tmp_path / "out" / "jobs" / id / "upload"
    assert placed(sent) == ["b.png", "etc/passwd", "evil/scan_1.png"]
    assert (sent / "b.png").read_bytes() == b"bytes"
    assert re.fullmatch("[0-9a-f]{32}", id)
    assert {p.name for p in tmp_path.iterdir()} == {"tiny", "out"}


@pytest.mark.parametrize(
    "name, kept",
    [
        ("a.nii.gz", "a.nii.gz"),
        ("../../x", "x"),
        ("C:\\scans\\x.dcm", "x.dcm"),
        ("-rf", "rf"),
        ("a b<script>.png", "a_b_script_.png"),
        (".DS_Store", ""),
        ("._a.nii", ""),
        ("..", ""),
        ("Thumbs.db", ""),
        ("", "file"),
        ("a\x00b.png", "a_b.png"),
        ("con.png", "_con.png"),
        ("äé.png", "äé.png"),
        ("x" * 300 + ".nii.gz", "x" * 113 + ".nii.gz"),
    ],
)
def test_only_a_safe_base_name_is_kept(name, kept):
    assert uploads.base_name(name) == kept


@pytest.mark.parametrize(
    "sent, kept",
    [
        (["a/s.png", "b/s.png"], ["a/s.png", "b/s.png"]),
        (["a/IM1.dcm", "a/IM2.dcm", "b/IM1.dcm"], ["a/IM1.dcm", "a/IM2.dcm", "b/IM1.dcm"]),
        (["s.png", "s.png", "S.PNG"], ["2-s.png", "3-S.PNG", "s.png"]),
        (["s.png", "2-s.png", "s.png"], ["2-s.png", "3-s.png", "s.png"]),
        (["2-s.png", "s.png", "s.png"], ["2-s.png", "3-s.png", "s.png"]),
        (["a/s.png", "A/S.png"], ["2-A/S.png", "a/s.png"]),
        (["a", "a/s.png", "a/b"], ["2-a/s.png", "3-a/b", "a"]),
        (["a/b/s.png", "a/b"], ["2-a/b", "a/b/s.png"]),
        (["/".join("abcdefghijkl") + "/s.png"], ["e/f/g/h/i/j/k/l/s.png"]),
        (["../con/../a b/<s>.png"], ["_con/a_b/_s_.png"]),
        (["a/.git/x.png", "__MACOSX/a.png", "a/.DS_Store", "a.png"], ["a.png"]),
    ],
)
def test_files_keep_their_folders_and_do_not_overwrite_each_other(idle, tmp_path, sent, kept):
    id = post(idle, *sent).json()["id"]
    assert placed(tmp_path / "out" / "jobs" / id / "upload") == sorted(kept)


def test_a_declared_size_beyond_the_cap_is_refused_unread(idle):
    def never():
        raise AssertionError("read")
        yield b""

    answer = idle.post("/jobs", content=never(), headers={**OURS, "Content-Length": str(2**40)})
    assert answer.status_code == 413


def test_an_undeclared_body_is_cut_off_at_the_cap_and_nothing_stays(idle, tmp_path):
    sent = 0

    def endless():
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        while sent < 10**8:
            sent += 65536
            yield b"\0" * 65536

    answer = idle.post(
        "/jobs",
        content=endless(),
        headers={**OURS, "Content-Type": "multipart/form-data; boundary=b"},
    )
    assert answer.status_code == 413
    assert list((tmp_path / "out" / "jobs").iterdir()) == []


@pytest.mark.parametrize(
    "body, kind, code",
    [
        (b"x", "image/png", 415),
        (b"x", "multipart/form-data", 415),
        (b"nonsense", "multipart/form-data; boundary=b", 400),
        (
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nhalf',
            "multipart/form-data; boundary=b",
            400,
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="run"\r\n\r\n'
            + b"x" * 999
            + b"\r\n--b--\r\n",
            "multipart/form-data; boundary=b",
            400,
        ),
        (
            b"--b\r\nX: " + b"y" * 50_000 + b"\r\n\r\nx\r\n--b--\r\n",
            "multipart/form-data; boundary=b",
            400,
        ),
    ],
)
def test_damaged_bodies_are_refused_and_leave_nothing(idle, tmp_path, body, kind, code):
    assert (
        idle.post("/jobs", content=body, headers={**OURS, "Content-Type": kind}).status_code == code
    )
    assert list((tmp_path / "out" / "jobs").iterdir()) == []


def test_compressed_bodies_unknown_runs_and_empty_uploads_are_refused(idle):
    assert post(idle, **{"Content-Encoding": "gzip"}).status_code == 415
    assert post(idle, run="../tiny").status_code == 400
    assert post(idle, ".DS_Store").status_code == 400


def test_a_full_queue_says_429_and_has_room_again_after_a_cancel(idle):
    ids = [post(idle).json()["id"] for _ in range(3)]
    assert post(idle).status_code == 429
    assert idle.post(f"/jobs/{ids[1]}/cancel", headers=OURS).status_code == 204
    assert post(idle).status_code == 201
