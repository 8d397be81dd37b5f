"""Counts beside a paper's: the difference is said, and so is that there is none."""

from __future__ import annotations

from pseudohealthy.datasets.paper_counts import WOLLEB_CHEXPERT, say_beside


def test_a_set_of_the_published_size_is_the_same_and_an_empty_one_lacks_all(capsys):
    say_beside("one", "paper", WOLLEB_CHEXPERT, WOLLEB_CHEXPERT, "images")
    assert capsys.readouterr().err.count("the same") == 4
    say_beside("one", "paper", {("test", 0): 201}, WOLLEB_CHEXPERT, "images")
    said = capsys.readouterr().err
    assert (
        "test images: 201 healthy (paper: 200; +1), 0 diseased (paper: 200; -200)" in said
        and "-14,179" in said
    )
