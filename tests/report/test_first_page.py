"""The demo's first page says what was drawn, found and missed: every word follows from the
references."""

from __future__ import annotations

import json
import re

import pytest

from pseudohealthy.detection.rows import Detections
from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.report.first_page import first_page, known

LESION = {
    "lesions": 1,
    "found": 1,
    "marked": 0.5,
    "elsewhere": 0,
    "removed": 0.9,
    "twin_still_shows_it": False,
}
HEALTHY = {
    "lesions": 0,
    "found": 0,
    "marked": None,
    "elsewhere": 0,
    "removed": None,
    "twin_still_shows_it": None,
}


def detections(folder, truths: dict, *, cases: int = 26, below: int = 26) -> Detections:
    """A detection as on disk: case -> what its case.json says beside its reference."""
    found = Detections(folder)
    for name, truth in truths.items():
        (folder / name).mkdir(parents=True)
        said = {"truth": truth, "made": {"run": "brain-t1"}}
        (folder / name / "case.json").write_text(json.dumps(said))
        found.rows.append(
            {
                "case_id": name,
                "score": 1.0,
                "healthy_percentile": 100 * below / (cases + 1),
                "healthy_cases": cases,
                "volume_ml_above": None,
                "n_regions": truth["elsewhere"] + truth["found"],
                "status": "ok",
                "warnings": "",
            }
        )
    return found


@pytest.fixture
def group(tmp_path):
    truths = {
        "hit": LESION,
        "miss": LESION | {"found": 0, "marked": 0.0, "removed": 0.3, "twin_still_shows_it": True},
        "loud": HEALTHY | {"elsewhere": 8},
        "quiet": HEALTHY,
    }
    return known(detections(tmp_path / "findings-brains", truths), "slice", "lesion")


def test_it_says_which_carry_a_lesion_what_was_found_and_what_was_missed(group):
    assert group.sentences() == [
        "A lesion was drawn into 2 of 4 slices: hit, miss.",
        "It is marked, in part or whole, in 1 of 2; missed in miss.",
        "Something is marked in 1 of 2 without a lesion: loud (8 regions).",
        (
            "The healthy twin still shows the lesion in 1 of 2; share of its contrast removed: miss"
            " (30 %)."
        ),
    ]
    assert [line["case_id"] for line in group.lines()] == ["hit", "miss", "loud", "quiet"]


def test_scores_that_do_not_stand_out_and_too_few_healthy_ones_are_said(tmp_path):
    low = known(detections(tmp_path / "a", {"x": LESION}, below=12), "slice", "lesion").sentences()
    assert "By score alone these do not stand out: x (p = 0.56)." in low
    few = known(
        detections(tmp_path / "b", {"x": LESION}, cases=4, below=4), "head", "bleed"
    ).sentences()
    assert (
        "By score alone these do not stand out: x (p = 0.2); with 4 healthy ones p is never below"
        " 0.2." in few
    )


def test_a_failed_case_has_no_reference_and_stops_nothing(tmp_path):
    found = detections(tmp_path / "a", {"x": LESION})
    found.rows.append(dict.fromkeys(found.rows[0]) | {"case_id": "broken", "status": "failed"})
    assert [row["case_id"] for row in known(found, "slice", "lesion").rows] == ["x"]


def test_the_page_leads_with_it_and_lists_every_report_there_is(group, tmp_path):
    for name in ("findings-brains", "evaluation", "findings"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "report.html").write_text("x")
    reports = first_page(tmp_path, [group], Evaluation([], []))
    assert reports[0] == tmp_path / "report.html"
    assert (
        set(reports) == set(tmp_path.rglob("report.html"))
        and len(reports) == len(set(reports)) == 4
    )
    html = reports[0].read_text("utf-8")
    lead = html.index(
        "Marked: the lesion in 1 of 2 slices that have one. Something is marked in 1 of 2 healthy"
        " slices too."
    )
    assert html.index("<h1>") < lead < html.index("<h2>")
    assert "The healthy twin still shows what was drawn in 1 of 2." in html
    links = re.findall(r'href="\./([^"]*report\.html)"', html)
    assert sorted(links) == [
        "evaluation/report.html",
        "findings-brains/report.html",
        "findings/report.html",
    ]
    assert "above all 26 healthy scans (p &lt;= 0.037)" in html and "96 %" not in html
