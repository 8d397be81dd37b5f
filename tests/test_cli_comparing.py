"""`compare` and `sweep` as a user meets them."""

from __future__ import annotations

import json

import pytest

from messages import one_line
from pseudohealthy.evaluation.compare import Comparison

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")


def test_compare_prints_runs_and_rivals_and_writes_the_files_of_the_contract(
    said, tiny_run, pictures, tmp_path
):
    common = ("--out", tmp_path / "out", "--device", "cpu", "--limit", 8)
    code, out, err = said("compare", tiny_run, tiny_run, "--data", pictures, *common)
    assert code == 0 and "report.html" in err
    assert "tiny (2)" in out and "minus best control" in out and "training s" in out
    assert {"comparison.csv", "comparison.png", "report.html"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_compare_needs_runs_and_data_and_one_protocol(said, tiny_run, pictures, tmp_path):
    for missing in ((tiny_run,), ("--data", pictures)):
        code, _, err = said("compare", *missing, "--out", tmp_path / "out")
        assert code == 2 and one_line(err, "USAGE")
    code, _, err = said(
        "compare",
        tiny_run,
        "--data",
        pictures,
        "--out",
        tmp_path / "out",
        "--protocol",
        "strict,thor",
    )
    assert code == 2 and one_line(err, "PROTOCOL")
    code, _, err = said(
        "compare", tmp_path / "absent", "--data", pictures, "--out", tmp_path / "out"
    )
    assert code == 5 and one_line(err, "RUN_MISSING") and not (tmp_path / "out").exists()


def test_sweep_says_which_setting_is_best_and_how_to_keep_it(said, tiny_run, pictures, tmp_path):
    words = ("sweep", tiny_run, "--data", pictures, "--device", "cpu", "--over", "map.smooth=0,2")
    code, out, _ = said(*words, "--out", tmp_path / "a")
    assert code == 0 and f"train --resume {tiny_run} --set map.smooth=" in out.splitlines()[-1]
    report = (tmp_path / "a" / "report.html").read_text()
    assert "train --resume PATH/tiny --set map.smooth=" in report and str(tiny_run) not in report
    code, out, _ = said(*words, "--out", tmp_path / "b", "--over", "map.erode=0", "--json")
    found = json.loads(out)
    assert code == 0 and len(found["settings"]) == 2 and found["best"][1] == "map.erode=0"
    code, _, err = said(
        "sweep", tiny_run, "--data", pictures, "--out", tmp_path / "c", "--over", "canvas.size=8"
    )
    assert code == 2 and one_line(err, "USAGE") and not (tmp_path / "c").exists()


def test_evaluate_analyses_on_request(said, tiny_run, pictures, tmp_path):
    code, _, _ = said(
        "evaluate",
        tiny_run,
        "--data",
        pictures,
        "--out",
        tmp_path / "out",
        "--limit",
        4,
        "--analyses",
    )
    assert (
        code == 0
        and (tmp_path / "out" / "analyses.html").is_file()
        and (tmp_path / "out" / "report.html").is_file()
    )


def test_compare_analyses_on_request_and_not_else(said, tiny_run, pictures, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("pseudohealthy.workflows.compare.compare", lambda *_, **__: Comparison())
    monkeypatch.setattr(
        "pseudohealthy.workflows.analyse.analyse_runs", lambda *words, **_: asked.append(words)
    )
    words = (
        "compare",
        tiny_run,
        "--data",
        pictures,
        "--data",
        pictures,
        "--out",
        tmp_path / "out",
        "--json",
    )
    assert said(*words)[0] == 0 and asked == []
    assert said(*words, "--analyses")[0] == 0 and asked == [
        ((tiny_run,), (pictures, pictures), tmp_path / "out")
    ]
