"""How the tests of protocols measure, and one record of what they get."""

from __future__ import annotations

from pseudohealthy.evaluation.protocols import Setting

SETTING = Setting(resamples=100)


def value(evaluation, metric):
    (record,) = (r for r in evaluation.records if r.metric == metric and r.method == "ddpm")
    return record
