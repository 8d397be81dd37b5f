"""The page is inert, complete and offline: hostile names stay text, nothing is loaded, failures
come first."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import fields
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pseudohealthy.evaluation.protocols import CaseResult, Setting, strict
from pseudohealthy.metrics.thresholds import Threshold
from pseudohealthy.report import evaluation_tables, page

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "</script><script>alert(1)</script>",
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
]


class Elements(HTMLParser):
    """Every element with its attributes, and the text of scripts and styles."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, str]] = []
        self.text: list[str] = []
        self._open = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data):
        if self._open in ("script", "style"):
            self.inside.append((self._open, data))
        else:
            self.text.append(data)

    def handle_endtag(self, tag):
        self._open = ""


def report(tmp_path, **settings):
    rows = [
        {"case_id": "quiet", "score": 0.1, "status": "ok", "warnings": ""},
        {"case_id": "loud", "score": 0.9, "status": "ok", "warnings": ""},
        {"case_id": "odd", "score": 0.5, "status": "warn", "warnings": "NONFINITE n=3"},
        {"case_id": "broken", "score": None, "status": "TRUNCATED", "warnings": "file ends early"},
    ]
    settings = {"rows": rows} | settings
    cases = {f.name for f in fields(page.Cases)} & settings.keys()
    told = {
        "title": "Detection",
        "provenance": {"run": "demo", "weights": {"sha256": "ab"}},
        "cases": page.Cases(**{name: settings.pop(name) for name in cases}),
    } | settings
    return page.write_report(tmp_path / "out", page.Report(**told)).read_text("utf-8")


def picture(path, size=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (size, size), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def evaluation():
    rng = np.random.default_rng(0)
    cases = []
    for method, gain in (("ddpm", 2.0), ("control: mean intensity", 0.2)):
        for number in range(20):
            truth = rng.random(60) < 0.1 * (number % 2)
            found = (rng.normal(size=60) + gain * truth).astype(np.float32)
            score = float(rng.normal() + gain * (number % 2))
            cases.append(
                CaseResult(
                    f"c{number}",
                    f"p{number}",
                    number % 2,
                    score,
                    map=found,
                    truth=truth,
                    method=method,
                )
            )
    return strict(
        cases,
        Setting(thresholds=Threshold(1.5, "healthy-quantile", {"n_patients": 5}), resamples=50),
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_never_becomes_markup(tmp_path, text):
    place = picture(tmp_path / "out" / "panel.png")
    innocent = Elements(
        report(tmp_path, panels={"quiet": place}, summary={"cases": 4}, notes=["n"])
    )
    attacked = Elements(
        report(
            tmp_path,
            title=text,
            rows=[{"case_id": text, "score": 1.0, "status": "ok", "warnings": text, text: text}],
            panels={text: place},
            summary={text: text},
            provenance={text: text},
            notes=[text],
        )
    )
    assert text in "".join(attacked.text)
    assert [tag for tag, _ in attacked.found].count("script") == 1
    assert (
        [tag for tag, _ in attacked.found].count("img")
        == [tag for tag, _ in innocent.found].count("img")
        == 1
    )
    assert not [
        name for _, attributes in attacked.found for name in attributes if name.startswith("on")
    ]
    assert all(not (a.get("href") or "").startswith("javascript") for _, a in attacked.found)
    assert attacked.inside == innocent.inside  # style and script hold nothing from outside


def test_the_policy_allows_nothing_but_our_own_script_and_style(tmp_path):
    html = report(tmp_path)
    elements = Elements(html)
    [policy] = [
        a["content"] for t, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert (
        policy.startswith("default-src 'none'; ")
        and "unsafe" not in policy
        and "http" not in policy
    )
    assert html.index("Content-Security-Policy") < html.index("<style>")
    for kind in ("script", "style"):
        source = "".join(text for tag, text in elements.inside if tag == kind)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not [a for _, a in elements.found if "style" in a]  # a style attribute would be blocked


def test_nothing_comes_from_outside(tmp_path):
    html = page.evaluation_report(tmp_path / "out", evaluation(), {"run": "demo"}).read_text(
        "utf-8"
    )
    assert not re.search(
        r"(https?:)?//[a-z0-9]", re.sub(r"data:image/png;base64,[^\"]*", "", html), re.IGNORECASE
    )
    elements = Elements(html)
    assert not [
        tag
        for tag, _ in elements.found
        if tag in ("link", "iframe", "object", "embed", "form", "base")
    ]
    assert all(a["src"].startswith(("data:", "./")) for tag, a in elements.found if "src" in a)


def test_failures_come_first_then_warnings_then_the_highest_score(tmp_path):
    body = report(tmp_path).split("<tbody>")[1]
    order = [body.index(f'data-value="{case}"') for case in ("broken", "odd", "loud", "quiet")]
    assert order == sorted(order)
    assert '<tr class="failed">' in body.split("broken")[0]


def test_every_page_says_research_use_only_and_how_it_was_made(tmp_path):
    html = report(tmp_path)
    assert html.count("Research use only - not for diagnosis") == 2
    assert "weights.sha256" in html and "demo" in html


def test_pictures_are_embedded_while_there_is_room_and_linked_beyond(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    first, second = picture(folder / "a" / "panel.png"), picture(folder / "b #1%" / "panel.png")
    size = first.stat().st_size
    monkeypatch.setattr(page, "EMBED_MEGABYTES", 1.5 * size / 1e6)
    html = report(tmp_path, panels={"loud": first, "quiet": second, "odd": folder / "missing.png"})
    sources = [a["src"] for tag, a in Elements(html).found if tag == "img"]
    assert sources == [
        "data:image/png;base64," + base64.b64encode(first.read_bytes()).decode(),
        "./b%20%231%25/panel.png",
    ]
    assert str(tmp_path) not in html
    assert '<a href="#picture-' in html


def test_the_metrics_stand_with_their_intervals_and_controls_below(tmp_path):
    result = evaluation()
    evaluation_tables.save(result, tmp_path / "out")
    html = page.evaluation_report(tmp_path / "out", result, {"run": "demo"}).read_text("utf-8")
    [auroc] = [r for r in result.records if r.metric == "image_auroc" and r.method == "ddpm"]
    table = html.split('id="metrics"')[1].split("</table>")[0]
    assert f"{auroc.value:.3f}*" in table and f"[{auroc.ci95[0]:.2f}, {auroc.ci95[1]:.2f}]" in table
    assert (
        table.index(">ddpm<")
        < table.index("ddpm minus best control")
        < table.index(">control: mean intensity<")
    )
    assert html.count("data:image/png;base64,") == 3
    again = page.Report("t", records=[r.as_dict() for r in result.records])
    stored = page.write_report(tmp_path / "again", again)
    assert f"{auroc.value:.3f}*" in stored.read_text("utf-8")


def test_an_empty_report_is_still_a_page(tmp_path):
    html = page.write_report(tmp_path, page.Report("Nothing")).read_text("utf-8")
    assert "Nothing" in html and "<table" not in html


def test_scores_are_drawn_by_label_and_counted(tmp_path):
    rows = [
        {"case_id": str(i), "score": float(i % 7), "label": i % 2, "status": "ok"}
        for i in range(40)
    ]
    html = report(tmp_path, rows=rows)
    assert "healthy (n = 20)" in html and "anomalous (n = 20)" in html
    bars = [a for tag, a in Elements(html).found if tag == "rect" and float(a["width"]) != 12]
    assert len(bars) == 14  # seven scores, two labels


def test_cases_link_their_own_pages_and_healthy_validation_scores_stand_behind_theirs(tmp_path):
    pages = {"loud": tmp_path / "out" / "loud #1" / "case.html"}
    html = report(tmp_path, pages=pages, validation_scores=[0.1, 0.2, 0.3])
    assert '<a href="./loud%20%231/case.html">loud</a>' in html
    assert "healthy validation (n = 3)" in html and "cases (n = 3)" in html
    assert "healthy validation" not in report(tmp_path)


def test_a_percentile_is_told_in_words_with_its_number_and_sorts_by_its_value(tmp_path):
    row = {
        "case_id": "a",
        "score": 0.1,
        "healthy_percentile": 80.0,
        "healthy_cases": 4,
        "status": "ok",
    }
    html = report(tmp_path, rows=[row])
    assert '<td class="text" data-value="80.0">above all 4 healthy scans (p &lt;= 0.2)</td>' in html
    assert "healthy cases</button>" in html and "healthy_cases" not in html


def test_what_was_found_stands_first_then_links_picture_and_sections(tmp_path):
    place, text = picture(tmp_path / "out" / "panel.png"), HOSTILE[0]
    html = report(
        tmp_path,
        lead=[text],
        links={text: tmp_path / "out" / "sub" / "report.html"},
        sections={text: [text]},
        panels={"quiet": place},
        captions={"quiet": text},
    )
    escaped = "&lt;img src=x onerror=alert(1)&gt;"
    places = [
        html.index(part)
        for part in (
            f'lead">{escaped}',
            f'./sub/report.html">{escaped}',
            f"quiet: {escaped}",
            f"<h2>{escaped}",
            f"<li>{escaped}",
            'id="case-list"',
        )
    ]
    assert places == sorted(places) and text not in html
