"""A rank in words always says among how many, and never claims more than they allow."""

from __future__ import annotations

import pytest

from pseudohealthy.detection.ranks import p_value, rank, rank_of


@pytest.mark.parametrize("count", [1, 4, 26, 999])
def test_p_is_a_share_of_the_healthy_cases_and_the_case_and_never_nought(count):
    assert p_value(count, count) == 1 / (count + 1)
    assert p_value(0, count) == 1
    values = [p_value(below, count) for below in range(count + 1)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    "percentile, count, words",
    [
        (80.0, 4, "above all 4 healthy heads (p <= 0.2)"),
        (60.0, 4, "above 3 of 4 healthy heads (p = 0.4)"),
        (0.0, 4, "above none of 4 healthy heads (p = 1)"),
        (50.0, 1, "above the one healthy head (p <= 0.5)"),
        (44.44, 26, "above 12 of 26 healthy heads (p = 0.56)"),
        (100.0, 30000, "above all 30,000 healthy heads (p <= 3.3e-05)"),
        (80.0, None, "above 80 % of an unknown number of healthy heads"),
        (None, 4, ""),
    ],
)
def test_a_percentile_is_told_with_the_number_it_ranks_among(percentile, count, words):
    assert rank(percentile, count, "healthy head") == words
    assert (
        rank_of({"healthy_percentile": percentile, "healthy_cases": count}, "healthy head") == words
    )


def test_the_model_card_says_how_small_p_can_be():
    from pseudohealthy.training.model_card import ranked

    (line,) = ranked({"case_scores": [0.1] * 26})
    assert "26 healthy validation scans" in line and line.endswith("0.037")
    assert "none" in ranked({"case_scores": []})[0]


def test_no_rank_is_told_where_there_is_none():
    assert rank(None, 4) == rank(float("nan"), 4) == ""
