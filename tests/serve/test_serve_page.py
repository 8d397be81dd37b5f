"""The pages in a real browser: they load, say nothing on the console, ask nobody else, and send
files."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chromium import Browser, needs_chromium

for name in ("starlette", "uvicorn", "python_multipart"):
    pytest.importorskip(name)

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
SEND = """(async () => {
  const files = new DataTransfer();
  for (const name of NAMES) files.items.add(new File(["x"], name));
  document.getElementById("files").files = files.files;
  document.getElementById("files").dispatchEvent(new Event("change"));
  for (let n = 0; n < 100 && !document.querySelector(".jobs, tr.failed"); n++)
    await new Promise((go) => setTimeout(go, 100));
  return document.getElementById("queue").textContent;
})()"""


@pytest.fixture
def address(run_folder: Path, tmp_path: Path) -> Iterator[str]:
    """Of the command line's own app, with a job of hostile names in its history; it must end well
    by SIGTERM."""
    place = tmp_path / "out" / "jobs" / ("0" * 32)
    place.mkdir(parents=True)
    finding = {
        "case_id": HOSTILE,
        "score": 0.5,
        "healthy_percentile": 90.0,
        "healthy_cases": 9,
        "volume_ml_above": None,
        "n_regions": 1,
        "warnings": HOSTILE,
        "page": True,
    }
    job = {
        "id": place.name,
        "name": HOSTILE,
        "run": HOSTILE,
        "status": "done",
        "created": "2026-01-01T00:00:00+00:00",
        "seconds": 3,
        "reason": HOSTILE,
        "findings": [finding],
        "count": 1,
    }
    (place / "job.json").write_text(json.dumps(job))
    words = [
        sys.executable,
        "-m",
        "pseudohealthy",
        "serve",
        run_folder,
        "brain-t1",
        "--port",
        "0",
        "--out",
        tmp_path / "out",
    ]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        found = re.search(r"http://127.0.0.1:\d+/\?token=\S+", child.stdout.readline())
        assert found, child.stderr and child.stderr.read()
        yield found[0]
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0
    finally:
        child.kill()
        child.communicate()


@needs_chromium
def test_the_pages_load_quietly_keep_no_token_and_send_files(address, tmp_path):
    home = address.split("?")[0]
    with Browser(tmp_path / "profile", webgl=False) as browser:
        browser.open(address)
        assert browser.ask("location.href") == home
        assert browser.ask("document.cookie") == ""  # scripts cannot read it
        assert browser.ask("document.title") == "Detect - pseudohealthy"
        assert HOSTILE in browser.ask("document.querySelector('tr.done').textContent")
        assert "above all 9 healthy scans (p <= 0.1)" in browser.ask(
            "document.querySelector('tr.done').textContent"
        )
        assert browser.ask("document.querySelectorAll('#queue img').length") == 0
        said = browser.ask(SEND.replace("NAMES", '["a.dcm", "b.dcm", ".hidden"]'))
        # Archives name files after patients.
        assert "2 files (DICOM)" in said and "a.dcm" not in said
        assert browser.picture(tmp_path / "home.png").stat().st_size > 10_000
        time.sleep(1.2)  # the list is fetched meanwhile
        browser.open(f"{home}runs")
        assert "41,609" in browser.ask("document.body.textContent")
        assert [text for text in browser.said if "training" not in text] == []
        assert {url.split("?")[0].rsplit("/", 1)[0] + "/" for url in browser.asked} <= {
            home,
            f"{home}runs/0/",
        }


FOLDER = """(async () => {
  document.querySelector("[name=run][value=brain-t1]").click();
  const files = new DataTransfer();
  for (const place of PLACES) {
    const file = new File(["x"], place.split("/").at(-1));
    Object.defineProperty(file, "webkitRelativePath", { value: place });
    files.items.add(file);
  }
  const input = document.getElementById("folder"), kept = [...files.files];
  Object.defineProperty(input, "files", { value: kept });
  input.dispatchEvent(new Event("change"));
  for (let n = 0; n < 100 && !document.querySelector(".jobs"); n++)
    await new Promise((go) => setTimeout(go, 50));
  return document.getElementById("queue").textContent;
})()"""


@needs_chromium
def test_folders_go_with_their_files_and_the_chosen_run_survives_a_reload(address, tmp_path):
    with Browser(tmp_path / "profile", webgl=False) as browser:
        browser.open(address)
        chosen = "document.querySelector('[name=run]:checked').value"
        assert browser.ask(chosen) == "tiny"
        said = browser.ask(FOLDER.replace("PLACES", '["a/s.png", "b/s.png", "b/.git/x"]'))
        assert "a/s.png and 1 more" in said and "2 files" in said
        uploads = {
            p.relative_to(p.parents[1]).as_posix() for p in (tmp_path / "out").rglob("s.png")
        }
        assert uploads == {"a/s.png", "b/s.png"}
        browser.open(address.split("?")[0])
        assert browser.ask(chosen) == "brain-t1"
        assert browser.said == []


@needs_chromium
def test_on_a_phone_a_row_of_the_history_shows_its_result_and_its_viewer(address, tmp_path):
    with Browser(tmp_path / "profile", webgl=False) as browser:
        browser.call(
            "Emulation.setDeviceMetricsOverride",
            width=390,
            height=844,
            deviceScaleFactor=1,
            mobile=True,
        )
        browser.open(address)
        assert browser.ask("document.documentElement.scrollWidth") <= 390
        boxes = browser.ask(
            "[...document.querySelectorAll('tr.done .status, tr.done a.main, tr.done"
            " [data-label=score], tr.done .delete button')].map((place) => { const box ="
            " place.getBoundingClientRect(); return [box.left, box.right, box.height]; })"
        )
        assert len(boxes) == 4 and all(
            0 <= left < right <= 390 and tall > 0 for left, right, tall in boxes
        )
        assert browser.ask("document.querySelector('.scroll').scrollWidth") <= 390
