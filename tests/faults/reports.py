"""W: hostile text in reports and tables."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from faults.dicoms import put, series_of
from faults.material import png
from faults.scoring import Done, Trial, row
from faults.stage import Stage


class Tags(HTMLParser):
    """Scripts and event handlers a browser would see."""

    def __init__(self, text: str):
        super().__init__()
        self.scripts, self.handlers, self.policy = 0, 0, ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.handlers += any(
            name.startswith("on") or (value or "").startswith("javascript:")
            for name, value in attrs
        )
        found = dict(attrs)
        if tag == "meta" and (found.get("http-equiv") or "").lower() == "content-security-policy":
            self.policy = found.get("content") or ""


def pages(folder: Path) -> dict[Path, Tags]:
    return {path: Tags(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}


def hostile_report(stage: Stage) -> tuple[Done, Path, Path]:
    """Reports of a harmless and of a hostile input."""
    first, second = stage.out(), stage.out()
    stage.detect(png(stage.folder / "plain" / "a.png"), run=stage.tiny, out=first)
    for number, name in enumerate(
        ['"><script>alert(1)<', "<img src=x onerror=alert(2)>", "{{7*7}}<!--"]
    ):
        png(stage.folder / "in" / f"{name}.png".replace("/", "_"), number)
    (stage.folder / "in" / "<svg onload=alert(3)>.txt").write_text("no image")
    return stage.detect(stage.folder / "in", run=stage.tiny, out=second), first, second


@row(
    "W1",
    "markup in SeriesDescription and file names",
    "shown as text; policy default-src 'none'; no script but ours",
    adapted="the page is parsed for scripts, handlers and policy; no browser is driven here",
)
def w1(stage: Stage) -> Iterator[Trial]:
    done, first, second = hostile_report(stage)
    plain, found = (list(pages(folder).values()) for folder in (first, second))
    yield Trial(
        done,
        (0,),
        facts={"a page": len(found) > 0},
        exact={"default-src 'none'": all("default-src 'none'" in page.policy for page in found)},
        harms={
            "a handler or script of the input": (
                any(p.handlers for p in found)
                or {p.scripts for p in found} != {p.scripts for p in plain}
            )
        },
    )
    evil = put(
        SeriesDescription="<img src=x onerror=alert(1)>", PatientName="<script>alert(1)</script>"
    )
    out = stage.out()
    done = stage.detect(series_of(stage, evil), out=out, kinds=("volumes", "panel", "json"))
    yield Trial(done, (0,), harms={"markup": any(p.handlers for p in pages(out).values())})


@row("W2", "</script> inside embedded JSON", "escaped")
def w2(stage: Stage) -> Iterator[Trial]:
    from pseudohealthy.report.page import Cases, Report, write_report

    rows = [
        {"case_id": f"</script><script>alert({k})</script>", "score": float(k), "status": "ok"}
        for k in range(3)
    ]
    plain = [{"case_id": f"case {k}", "score": float(k), "status": "ok"} for k in range(3)]
    counts = []
    for name, given in (("plain", plain), ("hostile", rows)):
        report = Report("</script><script>x", cases=Cases(given), provenance={"run": "</script>"})
        write_report(stage.folder / name, report)
        counts.append(next(iter(pages(stage.folder / name).values())).scripts)
    yield Trial(
        Done(0),
        (0,),
        facts={"a page": len(counts) == 2},
        harms={"a script more": counts[0] != counts[1]},
    )


@row("W10", "case ids =cmd|..., +1, -1, @x in tables", "defused for a spreadsheet")
def w10(stage: Stage) -> Iterator[Trial]:
    for number, name in enumerate(("=cmd|' -C calc'!A0", "+1", "-1", "@SUM(1)")):
        png(stage.folder / "in" / f"{name}.png", number)
        (stage.folder / "in" / f"{name}.txt").write_text("skipped, and listed")
    out = stage.out()
    done = stage.detect(stage.folder / "in", run=stage.tiny, out=out)
    cells = []
    for path in out.rglob("*.csv"):
        with open(path, newline="") as file:
            cells += [cell for line in csv.reader(file) for cell in line]
    formulas = [
        c for c in cells if c[:1] in "=+-@\t\r" and c and not re.fullmatch(r"-?[\d.e+-]+", c)
    ]
    yield Trial(
        done, (0,), facts={"rows written": len(cells) > 40}, exact={"no formula": not formulas}
    )
