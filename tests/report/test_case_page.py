"""The case page: exact counts, everything inert, nothing loaded, small."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser

import nibabel as nib
import numpy as np
import pytest
from findings import AFFINE, HOSTILE, finding

from pseudohealthy.detection.finding import Finding
from pseudohealthy.report import case_page as case_module
from pseudohealthy.report.case_page import case_page
from pseudohealthy.report.panel import starting_window


class Page(HTMLParser):
    """Elements with their attributes, and the content of elements that have an id."""

    def __init__(self, html: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.held: dict[str, str] = {}
        self._open: str | None = None
        self.feed(html)
        self.data = json.loads(self.held["case"])

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._open = dict(attrs).get("id") or tag

    def handle_data(self, data):
        if self._open:
            self.held[self._open] = self.held.get(self._open, "") + data

    def handle_endtag(self, tag):
        self._open = None

    def volume(self, name: str) -> nib.Nifti1Image:
        return nib.Nifti1Image.from_bytes(
            gzip.decompress(base64.b64decode(self.held[f"volume-{name}"]))
        )


def page_of(tmp_path, one: Finding, **settings) -> Page:
    return Page(case_page(one, tmp_path / "case.html", **settings).read_text("utf-8"))


@pytest.mark.parametrize("threshold", [0.5, 0.013, 3.0, None, 0.0])
def test_counts_and_codes_are_exact_at_every_position_of_the_slider(tmp_path, threshold):
    one = finding(threshold=threshold)
    data = page_of(tmp_path, one).data
    steps = np.array(data["thresholds"])
    codes = np.searchsorted(steps, one.map, side="left")
    assert len(steps) == 255 and steps[0] == 0 and (np.diff(steps) > 0).all()
    for j in range(255):
        above = one.map > steps[j]
        assert data["counts"][j] == above.sum()
        assert np.array_equal(codes > j, above)
    if threshold:
        assert steps[data["start"]] == threshold and data["counts"][data["start"]] == one.mask.sum()


def test_the_copies_lie_where_the_scan_lies_and_codes_survive_the_way_to_disk(tmp_path):
    one = finding()
    page = page_of(tmp_path, one, truth=one.mask)
    rows, columns = (
        slice(o, o + n)
        for o, n in zip(page.data["origin"][1:], page.data["shape"][1:], strict=True)
    )
    for name, native in (
        ("map", None),
        ("truth", one.mask),
        ("image", one.scan.voxels[0]),
        ("healthy", one.healthy[0]),
    ):
        stored = page.volume(name)
        values = np.asarray(stored.get_fdata()).transpose(2, 1, 0)
        corner = AFFINE @ [0, rows.start, columns.start, 1]
        assert np.allclose(stored.affine @ [0, 0, 0, 1], corner) and stored.header["descrip"] == b""
        if native is None:
            assert np.array_equal(values > page.data["start"], one.mask[:, rows, columns])
        else:
            assert np.allclose(values, native[:, rows, columns], atol=0.6)


def test_hounsfield_units_stay_whole_so_that_every_window_works(tmp_path):
    one = finding(units="HU")
    page = page_of(tmp_path, one)
    assert page.volume("image").get_data_dtype() == np.int16
    names = [window["name"] for window in page.data["windows"]]
    assert [name.split(" ")[0] for name in names] == ["as", "brain", "subdural", "bone"]
    assert (page.data["windows"][1]["low"], page.data["windows"][1]["high"]) == (0, 80)


def test_a_page_that_would_be_too_large_gets_coarser_pictures_says_so_and_counts_as_before(
    tmp_path, monkeypatch
):
    one = finding((4, 200, 200))
    fine = page_of(tmp_path, one)
    monkeypatch.setattr(case_module, "MEGABYTES", len(fine.held["library"]) / 1e6 + 0.16)
    coarse = page_of(tmp_path, one)
    assert (
        fine.data["factor"] == 1 < coarse.data["factor"]
        and coarse.data["counts"] == fine.data["counts"]
    )
    assert "of the resolution" in (tmp_path / "case.html").read_text("utf-8")
    middle = [
        np.asarray(p.data["affine"]) @ [0, *((n - 1) / 2 for n in p.data["shape"][1:]), 1]
        for p in (fine, coarse)
    ]
    assert np.abs(middle[0] - middle[1]).max() < coarse.data["factor"]


def test_the_page_is_inert_and_allows_only_its_own_scripts(tmp_path):
    one = finding(name=HOSTILE, warnings=[HOSTILE], made={"run": HOSTILE, "restorer": HOSTILE})
    one.threshold_source = HOSTILE
    attacked = page_of(tmp_path, one, files={HOSTILE: HOSTILE})
    calm = page_of(tmp_path, finding(), files={"a": "b"})
    for tag in ("script", "img"):
        assert sum(t == tag for t, _ in attacked.found) == sum(t == tag for t, _ in calm.found)
    assert not [
        a
        for _, attributes in attacked.found
        for a in attributes
        if a.startswith("on") or a == "style"
    ]
    policy = next(
        a["content"] for _, a in attacked.found if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert (
        policy.startswith("default-src 'none'; ")
        and "unsafe" not in policy
        and "'self'" not in policy
    )
    library = gzip.decompress(base64.b64decode(calm.held["library"]))
    for text in (calm.held["script"].encode(), library):
        assert base64.b64encode(hashlib.sha256(text).digest()).decode() in policy


def test_the_library_is_the_published_one(tmp_path):
    folder = case_module.resources.files("pseudohealthy.report") / "vendor"
    [stated] = re.findall(r"`([0-9a-f]{64})`", (folder / "README.md").read_text("utf-8"))
    packed = (folder / case_module.LIBRARY).read_bytes()
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == stated


def test_a_single_plane_needs_no_library_and_is_small(tmp_path):
    page = page_of(tmp_path, finding((1, 64, 80), affine=None))
    assert "library" not in page.held and (tmp_path / "case.html").stat().st_size < 100_000
    assert (
        page.data["ml"] is None and page.data["unit"] == "pixels" and page.data["letters"] is None
    )


def test_saving_a_finding_writes_its_page(tmp_path):
    paths = finding().save(tmp_path, ["html", "json"])
    assert paths["html"] == tmp_path / "case-1" / "case.html" and paths["html"].is_file()
    assert json.loads(paths["case"].read_text())["outputs"]["html"] == "case.html"


@pytest.mark.parametrize(
    "layout, way", [("cases", "../report.html"), ("bids", "../../../../../report.html")]
)
def test_the_page_of_a_command_leads_back_to_its_report(tmp_path, layout, way):
    one = finding(name="sub-01_T1w")
    assert "all findings" not in one.save(tmp_path / "alone", ["html"], layout)["html"].read_text(
        "utf-8"
    )
    one.hashes = {"request_sha256": "of a command, which writes the report"}
    page = one.save(tmp_path, ["html"], layout)["html"]
    assert f'<a href="{way}">' in page.read_text("utf-8")
    assert (page.parent / way).resolve() == tmp_path.resolve() / "report.html"


def test_the_first_window_shows_the_image_whatever_range_the_file_calls_a_window(tmp_path):
    one = finding()  # tissue from 35 to 45 and a lesion of 65
    one.scan.display = (-40.0, 1000.0)  # all voxels, as some software writes it
    low, high = starting_window(one)
    assert low > 25 and high < 70
    data = page_of(tmp_path, one).data
    assert data["windows"][0] == {"name": "as the picture", "low": low, "high": high}
    assert {"name": "as the file says", "low": -40.0, "high": 1000.0} in data["windows"]
    for stored in ((20.0, 70.0), (38.0, 42.0)):
        one.scan.display = stored
        assert starting_window(one) == stored
    one.foreground[:] = False
    one.scan.display = None
    assert starting_window(one)[1] > 25, "without a foreground the whole image says"


def test_what_lies_above_a_lower_threshold_outside_of_the_foreground_is_in_the_page(tmp_path):
    one = finding()
    one.map[1, 2, 3] = 0.2
    page = page_of(tmp_path, one)
    codes = np.asarray(page.volume("map").get_fdata())
    assert (codes > 10).sum() == page.data["counts"][10] and page.data["origin"][1:] == [0, 0]


def test_the_facts_say_the_rank_with_its_number_and_beside_a_reference_what_was_found(tmp_path):
    made = finding(healthy_percentile=80.0, healthy_cases=4)
    html = case_page(made, tmp_path / "case.html", truth=made.mask).read_text("utf-8")
    assert "above all 4 healthy scans (p &lt;= 0.2)" in html and "80 %" not in html
    assert "found, 100 % of it marked" in html and "The most conspicuous first" in html
    assert "beside the reference" not in case_page(made, tmp_path / "other.html").read_text("utf-8")
