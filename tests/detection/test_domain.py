"""Scans unlike those a run was trained on are told, by name and with a p-value; healthy ones as
rarely as promised."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from pseudohealthy import io, models
from pseudohealthy.detection.detector import Detector, load
from pseudohealthy.detection.domain import ALPHA, FEWEST, Domain, Verdict
from pseudohealthy.errors import Fault
from pseudohealthy.runs.run import Run
from pseudohealthy.workflows.detect import detect

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")

EXAMPLES = sorted((models.examples("brain-t1") / "test" / "good").glob("*.png"))


def heads(count: int, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ovals with a bright spot in front: (planes (1, 1, S, S), foreground (1, S, S)) each, a little
    different."""
    rng, size, found = np.random.default_rng(seed), 48, []
    y, x = np.mgrid[:size, :size] / size - 0.5
    for _ in range(count):
        a, b, shift = 0.42 + rng.normal(0, 0.01), 0.33 + rng.normal(0, 0.01), rng.normal(0, 0.01)
        inside = (y / a) ** 2 + (x / b) ** 2 < 1
        spot = np.exp(-((y + 0.2 + shift) ** 2 + (x + 0.05) ** 2) / 0.01)
        plane = np.where(inside, -0.2 + spot + rng.normal(0, 0.05, (size, size)), -1).clip(-1, 1)
        found.append(
            (torch.tensor(plane[None, None], dtype=torch.float32), torch.tensor(inside[None]))
        )
    return found


@pytest.fixture(scope="module")
def domain() -> Domain:
    return Domain.learned(heads(60)).calibrated(heads(100, 1))


def changed(case, change):
    return change(case[0]), change(case[1])


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda t: t.rot90(1, (-2, -1)), "turned by 90 degrees counter-clockwise"),
        (lambda t: t.rot90(-1, (-2, -1)), "turned by 90 degrees clockwise"),
        (lambda t: t.flip(-2), "upside down"),
        (lambda t: t.rot90(2, (-2, -1)), "upside down"),
        (lambda t: t.flip(-1).rot90(1, (-2, -1)), "turned by 90 degrees counter-clockwise"),
        (lambda t: t.flip(-1).rot90(-1, (-2, -1)), "turned by 90 degrees clockwise"),
        (lambda t: t if t.dtype == torch.bool else -t, ""),
    ],
)
def test_how_a_scan_lies_is_said(domain, change, reason):
    verdicts = [domain.judge(*changed(case, change)) for case in heads(8, 2)]
    assert all(verdict.out for verdict in verdicts)
    assert {verdict.turned for verdict in verdicts} == {reason}


@pytest.mark.parametrize(
    "degrees, turned",
    [
        (90, "turned by 90 degrees counter-clockwise"),
        (-90, "turned by 90 degrees clockwise"),
        (20, ""),
        (-15, ""),
    ],
)
def test_a_head_is_called_turned_the_way_it_was(degrees, turned, tmp_path):
    run = Run.open("brain-t1")
    seen = Domain.from_json(run.read_json("fingerprint.json")["domain"])
    canvas = run.recipe.make_canvas()
    verdicts = []
    for path in EXAMPLES:
        for side, image in enumerate((Image.open(path), ImageOps.mirror(Image.open(path)))):
            image.rotate(degrees, expand=degrees % 90 == 0).save(tmp_path / f"{side}-{path.name}")
            fitted = canvas.fit(io.read(tmp_path / f"{side}-{path.name}"))
            verdicts.append(seen.judge(fitted.planes, fitted.foreground))
    assert all(verdict.out for verdict in verdicts)
    assert {verdict.turned for verdict in verdicts} == {turned}


def test_planes_that_are_all_alike_are_learnt_without_a_word_of_the_clustering(recwarn):
    planes, inside = torch.zeros(60, 1, 32, 32), torch.ones(60, 32, 32, dtype=torch.bool)
    seen = Domain.learned([(planes, inside)]).calibrated([(planes[:1], inside[:1])] * FEWEST)
    assert len(recwarn) == 0 and not seen.judge(planes[:1], inside[:1]).out


def test_a_turn_is_no_reason_where_grey_values_are_farther_off():
    checks = {"outline": 0.2, "appearance": 1.0, "orientation": 2.0, "grey values": 3.0}
    assert Verdict(0.01, 99, 0.02, checks, "upside down").reason == "its grey values"
    assert (
        Verdict(0.01, 99, 0.02, checks | {"grey values": 1.0}, "upside down").reason
        == "upside down"
    )


def test_healthy_scans_are_called_foreign_as_rarely_as_promised(domain):
    limits = [domain.calibrated(heads(100, 10 + k)) for k in range(4)]
    verdicts = [limited.judge(*case) for case in heads(100, 20) for limited in limits]
    # One set of 100 may be off by twice.
    assert ALPHA / 8 < np.mean([verdict.out for verdict in verdicts]) < 2 * ALPHA
    assert (
        verdicts[0].cases == 100
        and min(verdict.p for verdict in verdicts) > 0
        and verdicts[0].limit <= ALPHA
    )


def test_p_is_the_rank_among_the_healthy_cases(domain):
    for case in heads(5, 4):
        verdict = domain.judge(*case)
        above = sum(score >= max(verdict.checks.values()) for score in domain.scores)
        assert verdict.p == pytest.approx((above + 1) / 101)


def test_the_case_at_the_limit_is_out(domain):
    one = heads(1, 4)[0]
    score = max(domain.judge(*one).checks.values())
    above = replace(domain, scores=tuple([-1.0] * 98 + [score - 0.1, score + 0.1]))
    verdict = above.judge(*one)
    assert verdict.p == pytest.approx(2 / 101) == verdict.limit and verdict.out
    assert not replace(domain, scores=tuple([-1.0] * 98 + [score + 0.1] * 2)).judge(*one).out


def test_it_is_stored_and_read_back(domain):
    again = Domain.from_json(json.loads(json.dumps(domain.to_json())))
    for case in heads(4, 5):
        assert again.judge(*case).checks == pytest.approx(domain.judge(*case).checks, abs=0.05)


def test_few_healthy_cases_set_no_limit_and_no_foreground_no_verdict(domain):
    assert Domain.learned(heads(60)).calibrated(heads(FEWEST - 1)).judge(*heads(1)[0]) is None
    planes, foreground = heads(1)[0]
    assert domain.judge(planes, torch.zeros_like(foreground)) is None
    assert Domain.learned(heads(3)).calibrated([]).scores == ()  # three planes: one prototype
    assert Domain.learned([(planes, torch.zeros_like(foreground))]) is None


def test_a_prototype_is_the_mean_of_many_planes(domain):
    assert 1 <= len(domain.pictures) <= 3  # of 60 planes


# -- the bundled model -----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def brain() -> Detector:
    return load("brain-t1", device="cpu")


@pytest.mark.parametrize(
    "change, out",
    [
        (lambda p: p, False),
        (lambda p: p[:, ::-1], False),  # left and right of a picture cannot be told
        (np.rot90, True),
        (lambda p: p[::-1], True),
        (lambda p: 255 - p, True),
        (lambda p: p[:, : p.shape[1] // 2], True),
    ],
    ids=["as it is", "left and right", "turned", "upside down", "inverted", "half"],
)
def test_what_the_bundled_model_knows(brain, change, out):
    from pseudohealthy.io.scan import Scan

    for path in EXAMPLES[:2]:
        values = np.ascontiguousarray(change(np.asarray(Image.open(path)))).astype(np.float32)
        verdict = brain.verdict(brain.canvas.fit(Scan(values[None, None], None, "a", "raster")))
        assert verdict.out is out, verdict


def test_the_warning_comes_first_everywhere_and_strict_refuses(tmp_path):
    picture = Image.open(EXAMPLES[0])
    (tmp_path / "in").mkdir()
    picture.save(tmp_path / "in" / "usual.png")
    picture.rotate(90, expand=True).save(tmp_path / "in" / "turned.png")
    found = detect("brain-t1", [tmp_path / "in"], tmp_path / "out", device="cpu")
    rows = {row["case_id"]: row for row in found.rows}
    assert (
        rows["usual"]["status"] == "ok" and rows["turned"]["status"] == "warn" and found.exit == 0
    )
    assert rows["turned"]["warnings"].startswith(
        "OUT_OF_DOMAIN: unlike what the run was trained on: turned by 90"
    )
    said = json.loads((tmp_path / "out" / "turned" / "case.json").read_text())["domain"]
    assert said["out"] and said["cases"] == 105 and said["p"] <= said["limit"] <= ALPHA
    page = (tmp_path / "out" / "turned" / "case.html").read_text()
    assert page.index("OUT_OF_DOMAIN") < page.index('class="facts"')
    report = (tmp_path / "out" / "report.html").read_text()
    assert report.index("OUT_OF_DOMAIN: 1 of 2 scans is unlike") < report.index('class="facts"')
    # The first picture is of a scan it is meant for.
    assert "mask of usual" in report[: report.index('id="case-list"')]

    strict = detect(
        "brain-t1", [tmp_path / "in"], tmp_path / "strict", device="cpu", strict_domain=True
    )
    rows = {row["case_id"]: row for row in strict.rows}
    assert (
        rows["usual"]["status"] == "ok"
        and rows["turned"]["status"] == "failed"
        and strict.exit == 4
    )
    assert (
        rows["turned"]["warnings"].startswith("OUT_OF_DOMAIN: ")
        and not (tmp_path / "strict" / "turned").exists()
    )
    page = (tmp_path / "strict" / "report.html").read_text()
    assert (
        "OUT_OF_DOMAIN: 1 of 2 scans is unlike what the run was trained on and was refused (turned)"
        in page
    )
    assert "do not trust" not in page.split("<table")[0]  # there is no map and no score


def test_a_run_without_a_check_cannot_be_strict(tiny_run):
    with pytest.raises(Fault, match="rests on 8 healthy validation cases"):
        Detector(Run.open(tiny_run), device="cpu", strict_domain=True)


def test_a_run_of_planes_that_lie_every_way_calls_none_turned():
    def any_way(cases):
        return [changed(case, lambda t, k=k: t.rot90(k, (-2, -1))) for k, case in enumerate(cases)]

    every = Domain.learned(any_way(heads(80))).calibrated(any_way(heads(60, 1)))
    assert not every.one_way
    assert {every.judge(*case).turned for case in any_way(heads(8, 2))} == {""}
