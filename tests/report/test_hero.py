"""The first picture of a report: of a scan that the run is meant for, or it says that it is not."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from pseudohealthy.report.page import Cases, Report, write_report


@pytest.mark.parametrize(
    "code",
    ["OUT_OF_DOMAIN: its outline", "OOD_FOREGROUND: share 0.9", "SUFFIX: x; OOD_INTENSITY: y"],
)
def test_the_hero_is_in_the_domain_or_says_that_it_is_not(tmp_path, code):
    for name in ("ours", "other"):
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
    ours = {"case_id": "ours", "score": 0.1, "status": "ok", "warnings": ""}
    other = {"case_id": "other", "score": 9.0, "status": "warn", "warnings": code}

    def hero(*rows: dict) -> str:
        panels = {row["case_id"]: tmp_path / f"{row['case_id']}.png" for row in rows}
        page = write_report(tmp_path, Report("x", cases=Cases(rows, panels=panels))).read_text(
            "utf-8"
        )
        return re.findall("<figcaption>(.*?)</figcaption>", page)[0]

    assert hero(other, ours).startswith("ours") and "domain" not in hero(other, ours)
    assert hero(other) == "other: out of the run&#39;s domain"
