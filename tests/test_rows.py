"""docs/results.md says what the rows in docs/rows say, and rows say what a comparison or an
evaluation has stored."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import result_tables
import rows
import studies

from pseudohealthy.errors import Fault
from pseudohealthy.evaluation.records import Record

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
FILES = sorted((ROOT / "docs" / "rows").glob("*.json"))
AP = Record(
    metric="voxel_average_precision_pooled",
    value=0.4156,
    ci95=(0.28, 0.49),
    unit="voxel",
    protocol="strict",
    threshold_source=None,
    mask="foreground and reference",
    grid="native",
    postprocessing="own",
    n_patients=8,
    n_cases=9,
    prevalence=0.011,
    method="guided",
)


def figures(method: str, value: float, **other) -> list[Record]:
    """A method's AP and Dice."""
    dice = {"metric": "dice_pooled", "threshold_source": "healthy-quantile"}
    return [
        replace(AP, method=method, value=value, **other),
        replace(AP, method=method, value=value / 2, **dice, **other),
    ]


@pytest.fixture
def compared(tmp_path) -> Path:
    """What `compare` writes for two runs of one method and the controls in the canvas of both."""
    controls = {
        "control: z-score (run)": 0.3,
        "control: z-score (run (2))": 0.35,
        "control: identity (run)": 0.01,
    }
    records = [*figures("run", 0.4), *figures("run (2)", 0.2)]
    records += [record for name, value in controls.items() for record in figures(name, value)]
    against = {"metric": f"{AP.metric}_difference", "against": "control: z-score (run (2))"}
    records += [
        replace(AP, method="run", value=0.05, ci95=(-0.01, 0.02), **against),
        replace(AP, method="run (2)", value=-0.15, ci95=(-0.2, -0.1), **against),
        replace(AP, method="run", metric="n_empty_ref"),
    ]
    recipe = {
        "restorer": "patched",
        "network_calls": 27,
        "training_steps": 1700,
        "weights_sha256": "ab" * 32,
    }
    methods = {
        "run": {**recipe, "recipe": "pddpm-ixi-small", "run": "run"},
        "run (2)": {**recipe, "recipe": "ddpm-ixi-small", "run": "run"},
    }
    (tmp_path / "comparison.json").write_text(
        json.dumps(
            {
                "made": {"command": "pseudohealthy compare run run --data lgg", "commit": "f" * 40},
                "methods": {
                    **methods,
                    **{name: {"restorer": name.split()[1], "recipe": None} for name in controls},
                },
                "costs": [{"data": "lgg", "method": "run", "seconds_per_case": 1.23456}],
                "records": [{"data": "lgg", **record.as_dict()} for record in records],
            }
        )
    )
    return tmp_path


def collected(folder: Path, *words: str) -> dict:
    rows.main(["collect", str(folder), "--name", "one", "--rows", str(folder), *words])
    return json.loads((folder / "one.json").read_text(encoding="utf-8"))


def test_the_page_says_what_the_rows_say():
    """Fails for a figure edited by hand; `python benchmarks/real_data/rows.py page` makes the page
    right."""
    text = PAGE.read_text(encoding="utf-8")
    assert rows.page(text) == text
    assert {name for name, _ in rows.MARKED.findall(text)} == {path.stem for path in FILES}
    assert set(rows.STUDY.findall(text)) == {
        path.stem for path in (ROOT / "docs" / "rows" / "studies").glob("*.json")
    }


def test_a_figure_edited_by_hand_is_noticed():
    text = PAGE.read_text(encoding="utf-8")
    table = rows.MARKED.search(text)
    assert table is not None
    cell = re.search(r"\.\d{3} \[", table[0])
    assert cell is not None
    place = table.start() + cell.start()
    edited = text[:place] + ".123 [" + text[place + len(".123 [") :]
    assert edited != text and rows.page(edited) == text


def test_every_table_of_the_page_comes_from_rows():
    text = PAGE.read_text(encoding="utf-8")
    rest = rows.STUDY.sub("", rows.MARKED.sub("", text))
    assert "\n|" in text and "\n|" not in rest


def test_the_claims_cite_figures_that_the_results_show():
    """Third column of docs/claims.md: every figure of ours stands in docs/results.md."""
    claims = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    results = PAGE.read_text(encoding="utf-8")
    lines = [
        line.split(" | ")
        for line in claims.splitlines()
        if line.startswith("| ") and "our evidence" not in line
    ]
    assert len(lines) >= 20 and all(len(cells) == 4 for cells in lines)
    cited = {
        figure for cells in lines for figure in re.findall(r"(?<![\d.])-?\.\d{2,3}(?!\d)", cells[2])
    }
    assert len(cited) > 30 and [figure for figure in sorted(cited) if figure not in results] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_stored_rows_are_complete_and_name_no_patient_and_no_place(path):
    found = json.loads(path.read_text(encoding="utf-8"))
    assert {"data", "split", "protocol", "mask", "grid", "interval"} == set(found["shared"])
    assert found["made"]["command"] and not re.search(r"(^|[\s=~])/|~", found["made"]["command"]), (
        "no absolute path"
    )
    for known in found["methods"].values():
        assert known["control"] or {"learns_from", "training_steps", "weights_sha256"} <= set(known)
    for row in found["rows"]:
        row = dict(zip(found["columns"], row, strict=True))
        assert row["method"] in found["methods"] and row["patients"] > 0
        assert row["low"] is None or row["low"] <= row["high"]
    assert path.stat().st_size < 100_000


def test_of_many_controls_those_that_lead_are_kept(compared):
    found = collected(compared)
    assert list(found["methods"]) == ["run", "run (2)", "control: z-score (run (2))"]
    assert found["methods"]["run"]["seconds_per_case"] == 1.23
    assert {row[1] for row in found["rows"]} == {
        AP.metric,
        "dice_pooled",
        f"{AP.metric}_difference",
    }


def test_a_table_ranks_runs_bolds_the_best_and_shows_the_paired_difference(compared):
    table = result_tables.table(
        collected(compared), [AP.metric, "dice_pooled", "less", AP.metric]
    ).splitlines()
    assert (
        table[2]
        == "| patched (`pddpm-ixi-small`) | healthy only | 27 | 1,700 | **.400 [.28, .49]** |"
        " **.200 [.28, .49]** | +.050 [-.010, .020] |"
    )
    assert table[3].startswith("| patched (`ddpm-ixi-small`)") and table[3].endswith(
        "| -.150 [-.20, -.10] |"
    )
    assert table[4].startswith(
        "| control: z-score, as patched (`ddpm-ixi-small`) sees it | | | | .350"
    )
    assert "9 cases of 8 patients" in " ".join(table) and ".011 (voxels)" in " ".join(table)


def test_an_evaluation_takes_its_budget_from_the_run_and_keeps_every_control(tmp_path):
    records = [
        *figures("guided", 0.4),
        *figures("control: identity", 0.1),
        *figures("control: z-score", 0.2),
    ]
    records += [
        replace(AP, metric=f"{AP.metric}_difference", value=0.2, against="control: z-score")
    ]
    (tmp_path / "metrics.json").write_text(json.dumps([record.as_dict() for record in records]))
    run = {
        "recipe": "wolleb-brats-small",
        "step": 1000,
        "data": "../data/lgg",
        "weights_sha256": "cd",
        "parameters": 12345,
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(SystemExit, match="--run"):
        collected(tmp_path)
    table = result_tables.table(
        collected(tmp_path, "--run", str(tmp_path)), [AP.metric]
    ).splitlines()
    assert [line.split(" | ")[0] for line in table[2:6]] == [
        "| guided (`wolleb-brats-small`)",
        "| control: z-score",
        "| control: identity",
        "| difference to the best control, paired",
    ]
    assert "Budget: 1,000 steps, 12,345 parameters." in " ".join(table)


def test_slices_of_ct_stand_beside_the_ruler(tmp_path):
    """Protocol ct has no voxels; its rulers are controls without a recipe, and its words come with
    the figures."""
    words = {
        "protocol": "ct (slices are ranked without a threshold)",
        "metric": "plane_auroc",
        "unit": "plane",
    }
    records = [
        replace(AP, method="ct-patched", value=0.47, **words),
        replace(AP, method="control: tissue-area", value=0.745, **words),
    ]
    records += [
        replace(
            AP,
            method="ct-patched",
            value=-0.275,
            **words | {"metric": "plane_auroc_difference"},
            against="control: tissue-area",
        )
    ]
    (tmp_path / "metrics.json").write_text(json.dumps([record.as_dict() for record in records]))
    (tmp_path / "run.json").write_text(
        json.dumps({"recipe": "ct-pddpm-small", "step": 1500, "data": "../data/ct0"})
    )
    table = result_tables.table(collected(tmp_path, "--run", str(tmp_path)), []).splitlines()
    assert (
        table[0] == "| | plane AUROC |"
        and table[3] == "| control: tissue-area | **.745 [.28, .49]** |"
    )
    assert table[4] == "| difference to the best control, paired | -.275 [.28, .49] |"
    assert "slices are ranked without a threshold" in " ".join(table)


def test_what_the_rows_do_not_have_is_refused(compared):
    found = collected(compared)
    with pytest.raises(Fault, match="image_auroc"):
        result_tables.table(found, ["image_auroc"])
    with pytest.raises(Fault, match="nothing"):
        rows.page("<!-- rows: nothing -->\n<!-- end -->")
    with pytest.raises(SystemExit, match="the comparison is of lgg"):
        collected(compared, "--data", "wmh")


def test_figures_of_two_protocols_do_not_share_a_table(compared):
    stored = json.loads((compared / "comparison.json").read_text())
    stored["records"][0]["protocol"] = "wolleb"
    (compared / "comparison.json").write_text(json.dumps(stored))
    with pytest.raises(SystemExit, match="several tables"):
        collected(compared)


FRAME = {
    "study": "one",
    "command": "python x.py",
    "key": "what",
    "columns": {"calls": "calls", "AP": "test/AP", "less area": "less"},
    "rows": [{"label": "ours", "is": "b", "bold": True}, {"label": "the ruler", "is": "a"}],
}
ENTRIES = [
    {"what": "a", "calls": 0, "test": {"AP": [0.25, 0.2, 0.3]}, "less": [0.0, 0.0, 0.0]},
    {"what": "b", "calls": 8, "test": {"AP": [0.5, None, None]}, "less": [0.25, 0.1, 0.4]},
    {"what": "c", "calls": 9, "test": {"AP": [0.9, 0.8, 1.0]}, "less": [0.65, 0.5, 0.7]},
]


def test_a_study_shows_the_rows_that_its_frame_names(tmp_path):
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "one.json").write_text(json.dumps(FRAME))
    (tmp_path / "entries.json").write_text(json.dumps(ENTRIES))
    rows.main(["study", str(tmp_path / "entries.json"), "--name", "one", "--rows", str(tmp_path)])
    lines = rows.page("<!-- study: one -->\n<!-- end -->", tmp_path).splitlines()
    assert lines[4] == "| **ours** | 8 | **.500** | **+.250 [.10, .40]** |"
    assert lines[5] == "| the ruler | 0 | .250 [.20, .30] | |"
    assert "python x.py" in lines[7]
    with pytest.raises(Fault, match="'d'"):
        studies.studied({**FRAME, "rows": [{"label": "?", "is": "d"}]}, ENTRIES)
    with pytest.raises(Fault, match="two"):
        rows.page("<!-- study: two -->\n<!-- end -->", tmp_path)
