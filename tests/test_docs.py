"""What the repository says about itself: links that lead somewhere, no trace of the machine it was
written on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

from pseudohealthy.detection.finding import COLUMNS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(
    r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|<(?:img|a)\s[^>]*(?:src|href)=\"([^\"]+)\""
)
MACHINE = re.compile(r"(/(?:home/\w+|root)/|/Users/\w+|[A-Z]:\\\\Users)")


def tracked() -> list[Path]:
    """Files of the repository: what git knows, or every file where there is no git."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def anchors(page: Path) -> set[str]:
    """Headings as GitHub links them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = []
    for heading in re.findall(r"^#+\s+(.+?)\s*#*$", text, flags=re.MULTILINE):
        plain = re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.append(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain)))
    return set(found)


def dead_links(page: Path) -> list[str]:
    """Targets in this repository that are not there."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    dead = []
    for groups in LINK.findall(text):
        target = unquote(groups[0] or groups[1])
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name) if name else page
        if not place.exists() or (
            anchor and place.suffix == ".md" and anchor.lower() not in anchors(place)
        ):
            dead.append(target)
    return dead


def test_every_page_that_is_stored_is_looked_at():
    """What comes with a model or a protocol lies in src, and is not a page of the repository."""
    stored = {
        path
        for path in tracked()
        if path.suffix == ".md" and path.parts[len(ROOT.parts)] not in ("src", "tests")
    }
    assert stored <= set(PAGES) and ROOT / "README.md" in stored


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    assert dead_links(page) == []


def test_a_dead_link_is_seen(tmp_path):
    (tmp_path / "there.md").write_text("# A heading: of two\n")
    (tmp_path / "page.md").write_text(
        "[a](there.md) [b](there.md#a-heading-of-two) ![c](gone.png) [d](there.md#gone)"
        " [e](https://a.example/gone)\n<img src='there.md'> <img src=\"gone.svg\">"
        " [f](#gone)\n```\n[g](in-code.md)\n```\n"
    )
    assert dead_links(tmp_path / "page.md") == ["gone.png", "there.md#gone", "gone.svg", "#gone"]


def test_no_file_names_a_folder_of_the_machine_it_was_written_on():
    found = []
    for path in tracked():
        if path.name == "test_docs.py" or path.stat().st_size > 2**20:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group(0)}" for match in MACHINE.finditer(text)]
    assert found == []


def test_the_page_names_every_column_of_the_findings_in_order():
    """The contract fixes some; what is added says so."""
    text = (ROOT / "docs" / "get-started.md").read_text(encoding="utf-8")
    table = re.search(r"\| column of findings\.csv .*?\n\n", text, flags=re.DOTALL)[0]
    rows = [line.split("|")[1:3] for line in table.strip().splitlines()[2:]]
    assert tuple(name for cell, _ in rows for name in re.findall(r"`(\w+)`", cell)) == tuple(
        COLUMNS
    )
    assert {cell.strip(" `") for cell, what in rows if "(added)" in what} == {
        "score_sd",
        "healthy_cases",
    }
