"""Repetitions: their spread is over draws or seeds, never mixed with the spread over patients."""

from __future__ import annotations

import numpy as np
import pytest

from pseudohealthy.errors import Fault
from pseudohealthy.evaluation.protocols import CaseResult, strict
from pseudohealthy.evaluation.spread import spread


def evaluation(seed, number=30):
    rng = np.random.default_rng(seed)
    cases = [CaseResult(f"c{i}", f"p{i}", i % 2, float(rng.normal() + i % 2)) for i in range(number)]
    return strict(cases, resamples=100)


def test_mean_and_deviation_are_over_the_repetitions():
    several = [evaluation(seed) for seed in range(4)]
    values = [one.records[0].value for one in several]
    found = spread(several, "noise draws")[0]
    assert (found.metric, found.n, found.over) == ("image_auroc", 4, "noise draws")
    assert (found.mean, found.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (found.low, found.high) == (min(values), max(values))
    assert found.ci95[0] == pytest.approx(np.mean([one.records[0].ci95[0] for one in several]))
    assert "over 4 noise draws" in str(found)
    assert spread([several[0]] * 3, "seeds")[0].sd == 0


def test_other_cases_or_a_single_one_have_no_spread():
    with pytest.raises(Fault, match="SPREAD"):
        spread([evaluation(0)], "seeds")
    with pytest.raises(Fault, match="other cases"):
        spread([evaluation(0), evaluation(1, number=20)], "seeds")
