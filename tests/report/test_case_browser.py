"""The case page in a real browser: offline, it draws, and the slider counts."""

from __future__ import annotations

import re

import numpy as np
import pytest
from findings import AFFINE, HOSTILE, finding
from PIL import Image

from chromium import Browser, needs_chromium
from pseudohealthy.detection.finding import Finding
from pseudohealthy.report import case_volumes as copies
from pseudohealthy.report.case_page import case_page


def pane(browser: Browser, index: int, path) -> np.ndarray:
    """What one of the three canvases shows, (H, W, 3)."""
    corners = browser.ask(
        f"(() => {{ const b = document.getElementById('pane-{index}').getBoundingClientRect();"
        "return [b.top, b.bottom, b.left, b.right].map(Math.round); })()"
    )
    picture = np.asarray(Image.open(browser.picture(path)).convert("RGB")).astype(int)
    return picture[corners[0] : corners[1], corners[2] : corners[3]]


def differing(first: np.ndarray, second: np.ndarray) -> int:
    return int((np.abs(first - second).max(-1) > 12).sum())


def slide(browser: Browser, position: int) -> str:
    browser.ask(
        f"threshold_ = document.getElementById('threshold'); threshold_.value = {position};"
        "threshold_.dispatchEvent(new Event('input'))"
    )
    browser.ask("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return browser.ask("document.getElementById('above').textContent")


@needs_chromium
@pytest.mark.parametrize(
    "kind", [pytest.param("niivue", marks=pytest.mark.slow), "canvas", "plane"]
)
def test_offline_in_a_browser_the_page_draws_and_the_slider_counts(tmp_path, kind):
    one = (
        finding((1, 48, 40), affine=None, name=HOSTILE)
        if kind == "plane"
        else finding(name=HOSTILE)
    )
    page = case_page(one, tmp_path / "case.html", truth=one.mask)
    with Browser(tmp_path / "profile", webgl=kind == "niivue") as browser:
        drawn = browser.open(page)
        if kind == "niivue" and drawn == "canvas":
            pytest.skip("this Chromium has no WebGL2")
        assert drawn == ("niivue" if kind == "niivue" else "canvas")
        before = browser.ask("document.getElementById('above').textContent")
        assert f"{one.mask.sum()} {'pixels' if kind == 'plane' else 'voxels'}" in before
        assert kind == "plane" or before.startswith(f"{one.volume_ml_above:.2f} ml")
        first = [pane(browser, index, tmp_path / "a.png") for index in range(3)]
        assert all(shown.std() > 5 for shown in first), "no canvas is blank"
        assert differing(first[0], first[2]) > 100, "the map lies over the input"
        lower = slide(browser, 10)
        assert (
            int(re.findall(r"(\d+) (?:vox|pix)", lower)[0])
            == (one.map > copies.thresholds(one)[10]).sum()
            > one.mask.sum()
        )
        assert differing(first[2], pane(browser, 2, tmp_path / "b.png")) > 1000
        assert differing(first[0], pane(browser, 0, tmp_path / "b.png")) == 0
        assert browser.ask("document.title") == HOSTILE, "shown as text, never run"
        assert browser.said == [] and [url.partition(":")[0] for url in browser.asked] == ["file"]


@needs_chromium
def test_a_region_in_the_list_moves_all_views_to_its_peak(tmp_path):
    one = finding()
    with Browser(tmp_path / "profile", webgl=False) as browser:
        browser.open(case_page(one, tmp_path / "case.html"))
        browser.ask(
            "const plane_ = document.getElementById('plane'); plane_.value = 1;"
            " plane_.dispatchEvent(new Event('input'))"
        )
        assert "plane 1 of 6" in browser.ask("document.getElementById('where').textContent")
        browser.ask("document.querySelector('#regions button').click()")
        region = one.regions[0]
        place = (
            f"plane {region['plane'] + 1} of 6, row {region['row'] + 1}, column"
            f" {region['column'] + 1} "
        )
        assert browser.ask("document.getElementById('where').textContent").startswith(place)


def spots(shape=(6, 48, 40), **more) -> Finding:
    """A finding with a square of 30 voxels, a bridge over an edge that joins two planes, and two
    single voxels."""
    one = finding(shape, **more)
    one.map = np.where(one.map > 0.4, one.map, np.float32(0.05))
    plane = shape[0] // 2
    one.map[0, 10, 10] = one.map[plane, 30, 20] = 0.6
    if plane:
        one.map[plane + 1, 23, 20] = 0.8  # touches the square over an edge
    return one


def said(browser: Browser, name: str) -> str:
    browser.ask("new Promise((done) => setTimeout(done, 200))")
    return browser.ask(f"document.getElementById('{name}').textContent")


def enter(browser: Browser, name: str, value: float) -> None:
    browser.ask(
        f"(() => {{ const box = document.getElementById('{name}'); box.value = {value};"
        "box.dispatchEvent(new Event('input')); })()"
    )


@needs_chromium
@pytest.mark.parametrize("shape", [(6, 48, 40), (1, 48, 40)])
def test_regions_follow_the_slider_and_tiny_ones_can_be_hidden(tmp_path, shape):
    from scipy import ndimage

    one = spots(shape, affine=AFFINE if shape[0] > 1 else None)
    steps = copies.thresholds(one)
    with Browser(tmp_path / "profile", webgl=False) as browser:
        browser.open(case_page(one, tmp_path / "case.html"))
        assert said(browser, "many") == f"in {len(one.regions)} regions"
        assert browser.ask("document.querySelector('#regions button').textContent").endswith(
            f"peak {one.regions[0]['peak']:.3g}"
        )
        for level in (5, 60, 150, 200, 240):
            slide(browser, level)
            count = ndimage.label(one.map > steps[level], np.ones((3, 3, 3)))[1]
            assert said(browser, "many") == f"in {count} region{'s' * (count != 1)}", level
            assert browser.ask("document.querySelectorAll('#regions li').length") == min(count, 20)
        browser.ask("document.getElementById('reset').click()")
        enter(browser, "least", 2 if shape[0] == 1 else 0.0101)  # a voxel has 0.005 ml
        small = sum(region["voxels"] < 2 for region in one.regions)
        assert (
            small
            and said(browser, "many")
            == f"{len(one.regions) - small} of {len(one.regions)} regions shown"
        )
        assert f"{small} smaller one" in said(browser, "more")
        assert (
            browser.ask("document.querySelectorAll('#regions li').length")
            == len(one.regions) - small
        )
        assert browser.said == []


@needs_chromium
@pytest.mark.parametrize("kind", ["niivue", "canvas"])
def test_what_is_painted_is_what_is_counted(tmp_path, kind):
    one = finding()
    one.map = np.full_like(one.map, 0.45)  # all but above the threshold
    one.map[3, 18:24, 15:20] = 0.9
    one.map[3, 40, 20] = 0.9
    with Browser(tmp_path / "profile", webgl=kind == "niivue") as browser:
        if browser.open(case_page(one, tmp_path / "case.html")) != kind:
            pytest.skip("this Chromium has no WebGL2")
        enter(browser, "opacity", 100)

        def painted(box: bool) -> np.ndarray:
            browser.ask(
                "(() => { const box = document.getElementById('overlay'); box.checked ="
                f" {str(box).lower()};box.dispatchEvent(new Event('change')); }})()"
            )
            browser.ask(
                "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
            )
            return pane(browser, 2, tmp_path / "a.png")

        def tinted() -> np.ndarray:
            return np.abs(painted(True) - painted(False)).max(-1)

        both = tinted()
        assert (both > 60).sum() > 500
        haze = ((both > 3) & (both < 40)).sum() / (both > 60).sum()
        assert haze < 0.05, "edges are hard: nothing below the threshold is tinted"
        enter(browser, "least", 0.02)  # without the single voxel
        left = tinted()
        share = (both > 60).sum() / (left > 60).sum()
        assert share == pytest.approx(31 / 30, abs=0.02)
