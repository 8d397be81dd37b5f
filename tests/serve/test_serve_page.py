"""The pages in a real browser: they load, say nothing on the console, ask nobody else, and send files."""

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

from chromium import Browser, executable

for name in ("starlette", "uvicorn", "python_multipart"):
    pytest.importorskip(name)

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
SEND = """(async () => {
  const files = new DataTransfer();
  for (const name of NAMES) files.items.add(new File(["x"], name));
  document.getElementById("files").files = files.files;
  document.getElementById("files").dispatchEvent(new Event("change"));
  for (let n = 0; n < 100 && !document.querySelector(".jobs, tr.failed"); n++) await new Promise((go) => setTimeout(go, 100));
  return document.getElementById("queue").textContent;
})()"""


@pytest.fixture
def address(run_folder: Path, tmp_path: Path) -> Iterator[str]:
    """Of the command line's own app, with a job of hostile names in its history; it must end well by SIGTERM."""
    place = tmp_path / "out" / "jobs" / ("0" * 32)
    place.mkdir(parents=True)
    finding = {"case_id": HOSTILE, "score": 0.5, "healthy_percentile": 90.0, "healthy_cases": 9, "volume_ml_above": None, "n_regions": 1,
               "warnings": HOSTILE, "page": True}  # fmt: skip
    job = {"id": place.name, "name": HOSTILE, "run": HOSTILE, "status": "done", "created": "2026-01-01T00:00:00+00:00",
           "seconds": 3, "reason": HOSTILE, "findings": [finding], "count": 1}  # fmt: skip
    (place / "job.json").write_text(json.dumps(job))
    words = [sys.executable, "-m", "pseudohealthy", "serve", run_folder, "--port", "0", "--out", tmp_path / "out"]
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


@pytest.mark.skipif(executable() is None, reason="no Chromium")
def test_the_pages_load_quietly_keep_no_token_and_send_files(address, tmp_path):
    home = address.split("?")[0]
    with Browser(tmp_path / "profile", webgl=False) as browser:
        browser.open(address)
        assert browser.ask("location.href") == home
        assert browser.ask("document.cookie") == ""  # scripts cannot read it
        assert browser.ask("document.title") == "Detect - pseudohealthy"
        assert HOSTILE in browser.ask("document.querySelector('tr.done').textContent")
        assert "above all 9 healthy scans (p <= 0.1)" in browser.ask("document.querySelector('tr.done').textContent")
        assert browser.ask("document.querySelectorAll('#queue img').length") == 0
        said = browser.ask(SEND.replace("NAMES", '["a.dcm", "b.dcm", ".hidden"]'))
        assert "2 files (DICOM)" in said and "a.dcm" not in said  # archives name files after patients
        assert browser.picture(tmp_path / "home.png").stat().st_size > 10_000
        time.sleep(1.2)  # the list is fetched meanwhile
        browser.open(f"{home}runs")
        assert "41,609" in browser.ask("document.body.textContent")
        assert [text for text in browser.said if "training" not in text] == []
        assert {url.split("?")[0].rsplit("/", 1)[0] + "/" for url in browser.asked} <= {home, f"{home}runs/0/"}
