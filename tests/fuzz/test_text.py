"""Text from anywhere stays text: in spreadsheets, in pages, in recipes and manifests."""

from __future__ import annotations

import csv
import html.parser
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.errors import Fault
from pseudohealthy.runs.recipe import Recipe

EVIL = st.sampled_from(
    [
        "=1+1",
        "+1",
        "-1",
        "@x",
        "\t=1",
        "\r=1",
        "<script>alert(1)</script>",
        '" onload="x',
        "{{7*7}}",
        "</script><svg onload=x>",
        "javascript:x",
        "&lt;b&gt;",
        "'",
        "a\nb",
        "‮x",
    ]
)
TEXT = st.one_of(EVIL, st.text(st.characters(codec="utf-8"), max_size=20))


class Seen(html.parser.HTMLParser):
    """The tags, attributes and text of a page as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.names |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.text += data


@settings(max_examples=40, deadline=None)
@given(TEXT, TEXT)
def test_no_cell_of_a_table_runs_in_a_spreadsheet_and_none_spills_into_another(
    tmp_path_factory, one, other
):
    from pseudohealthy.io.table import write_table

    path = write_table(
        tmp_path_factory.getbasetemp() / "table.csv",
        [{"method": one, "value": -1.5, "note": other}],
    )
    with open(path, newline="", encoding="utf-8") as file:
        (_, (method, value, note)) = csv.reader(file)
    assert value == "-1.5"  # a number stays one
    for cell, text in ((method, one), (note, other)):
        assert cell[:1] not in tuple("=+-@\t\r")
        assert cell == text or (cell == f"'{text}" and text[0] in "=+-@\t\r")


@settings(max_examples=25, deadline=None)
@given(TEXT, TEXT)
def test_no_text_of_a_row_becomes_part_of_the_page(tmp_path_factory, one, other):
    from pseudohealthy.report.page import Cases, Report, write_report

    folder = tmp_path_factory.mktemp("page")

    def seen(name: str, warning: str) -> Seen:
        row = {"case_id": name, "score": 0.5, "status": "warn", "warnings": warning}
        said = {"run": warning}
        report = Report(name, cases=Cases([row]), summary=said, provenance=said)
        path = write_report(folder, report)
        parser = Seen()
        parser.feed(path.read_text(encoding="utf-8"))
        return parser

    plain, odd = seen("a", "b"), seen(one, other)
    assert set(odd.tags) <= set(plain.tags) | {"td"} and odd.names <= plain.names
    assert odd.tags.count("script") == plain.tags.count("script")


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda value: float(f"{value:.6g}"))


RECIPES = st.builds(
    Recipe,
    name=TEXT,
    summary=TEXT,
    source=TEXT,
    canvas=st.fixed_dictionaries(
        {},
        optional={
            "size": st.integers(4, 512),
            "margin": numbers(1e-6, 1),
            "crop": st.booleans(),
            "spacing": numbers(0.01, 1000),
            "value_range": st.tuples(st.floats(-1e6, 0), st.floats(1e-3, 1e6)),
            "normalise": st.just("range"),
        },
    ),
    restorer=st.fixed_dictionaries(
        {"name": st.just("ddpm")},
        optional={
            "diffusion": st.fixed_dictionaries({}, optional={"levels": st.integers(2, 1000)}),
            "walk": st.fixed_dictionaries(
                {},
                optional={
                    "start_levels": st.lists(st.integers(1, 1000), min_size=1, max_size=3).map(
                        tuple
                    )
                },
            ),
            "network": st.fixed_dictionaries(
                {},
                optional={
                    "width": st.integers(4, 32).map(lambda half: 2 * half),
                    "block": st.just({"groups": 4}),
                },
            ),
        },
    ),
    training=st.fixed_dictionaries(
        {},
        optional={
            "rate": numbers(1e-6, 1),
            "steps": st.integers(0, 10**9),
            "seed": st.integers(0, 2**63 - 1),
        },
    ),
    map=st.fixed_dictionaries(
        {},
        optional={
            "smooth": numbers(1e-6, 100),
            "share": st.floats(1e-3, 1),
            "kind": st.just("squared"),
        },
    ),
)


@settings(max_examples=60, deadline=None)
@given(RECIPES)
def test_a_recipe_is_read_back_as_it_was_written(recipe):
    again = Recipe.parse(recipe.toml())
    assert again.resolved() == recipe.resolved()
    resolved = recipe.resolved()
    assert Recipe.parse(resolved.toml()).resolved() == resolved
    assert (again.name, again.summary, again.source) == (recipe.name, recipe.summary, recipe.source)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(
        ["canvas.size", "training.rate", "map.share", "restorer.network.width", "canvas.windows"]
    ),
    TEXT,
)
def test_a_setting_of_any_text_is_taken_or_refused(key, text):
    try:
        recipe = Recipe.parse('[restorer]\nname = "ddpm"').set([f"{key}={text}"]).resolved()
    except Fault as fault:
        assert (
            fault.code in ("RECIPE", "BAD_SETTING")
            and fault.exit == 2
            and len(str(fault).splitlines()) == 1
        )
    else:
        assert Recipe.parse(recipe.toml()).resolved() == recipe


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            TEXT, TEXT, st.sampled_from(["", "train", "val", "test"]), st.sampled_from([None, 0, 1])
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_manifest_is_read_back_as_it_was_written_or_refused(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("manifest")
    made = [
        Case(name, patient, split, label, "a.png", site=patient, root=folder)
        for name, patient, split, label in rows
    ]
    path = Manifest(made, folder).save(folder / "manifest.csv")
    try:
        found = load(path)
    except Fault as fault:
        odd = [
            text
            for row in rows
            for text in row[:2]
            if not text.strip().isprintable() or not text.strip()
        ]
        assert fault.code in ("BAD_MANIFEST", "NO_INPUT") and odd
        return
    assert [(c.case_id, c.split, c.label) for c in found] == [
        (r[0].strip(), r[2], r[3]) for r in rows
    ]


def test_numbers_beyond_all_measure_are_refused_by_name():
    for text in (
        "[canvas]\nsize = " + "9" * 5000,
        "[canvas]\nwindows = " + "[" * 5000,
        "[map]\nshare = nan",
    ):
        with pytest.raises(Fault) as caught:
            Recipe.parse('[restorer]\nname = "ddpm"\n' + text).resolved().make_map()
        assert caught.value.code in ("RECIPE", "BAD_SETTING") and caught.value.exit == 2
    assert Recipe.parse("[map]\nsmooth = inf").map["smooth"] == math.inf
