"""The site has every page of docs in its navigation, builds without a warning, and its pages fetch
nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONFIG = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
FETCHED = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^\"' >]+"
)


def test_every_page_stands_in_the_navigation_and_the_navigation_leads_somewhere():
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    listed = re.findall(r"^ +- [^:\n]+: (\S+\.md)$", CONFIG, flags=re.MULTILINE)
    waiting = set(re.findall(r"^  /(\S+\.md)$", CONFIG, flags=re.MULTILINE))  # not_in_nav
    assert len(listed) == len(set(listed)) and set(listed) <= pages
    assert pages - set(listed) <= waiting


def test_no_font_is_fetched_and_warnings_are_errors():
    assert re.search(r"^  font: false\b", CONFIG, flags=re.MULTILINE)
    assert re.search(r"^strict: true$", CONFIG, flags=re.MULTILINE)


@pytest.mark.parametrize(
    "page, fetches",
    [
        ('<script src="https://a.example/x.js">', True),
        ('<link rel=icon href="//a.example/x.png">', True),
        ('<script src="assets/x.js">', False),
        ('<a href="https://a.example">', False),
    ],
)
def test_what_counts_as_fetching(page, fetches):
    assert bool(FETCHED.search(page)) == fetches


@pytest.mark.services
@pytest.mark.slow
def test_the_site_builds_strictly_and_fetches_nothing(tmp_path):
    pytest.importorskip(
        "material", reason="mkdocs-material is not installed: pip install 'pseudohealthy[docs]'"
    )
    line = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    assert [str(p) for p in pages if FETCHED.search(p.read_text(encoding="utf-8"))] == []
