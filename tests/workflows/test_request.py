"""A verb is called like a function, and its arguments are the fields of one frozen request."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields

import pytest

import pseudohealthy as ph
from pseudohealthy.workflows.compare import Compare
from pseudohealthy.workflows.evaluate import Evaluate
from pseudohealthy.workflows.sweep import Sweep


@pytest.mark.parametrize("request_class", [Evaluate, Compare, Sweep])
def test_a_verb_has_the_name_the_signature_and_the_help_of_its_request(request_class):
    name = request_class.__name__.lower()
    verb = getattr(ph, name)
    assert verb.__name__ == name and verb.__doc__ == request_class.__doc__
    parameters = inspect.signature(verb).parameters
    assert list(parameters) == [field.name for field in fields(request_class)]
    by_name = [
        one.name for one in parameters.values() if one.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    assert by_name[0] in ("protocol", "split") and "out" not in by_name
    assert all(f"        {one}: " in request_class.__doc__ for one in parameters), (
        "every argument is explained"
    )


def test_a_request_is_one_value_that_cannot_change_under_way():
    asked = Evaluate("run", "data", protocol="ct")
    assert (
        asked == Evaluate("run", data="data", protocol="ct")
        and len({asked, Evaluate("run", "data")}) == 2
    )
    with pytest.raises(FrozenInstanceError):
        asked.limit = 3
    with pytest.raises(TypeError, match="protocoll"):
        ph.evaluate("run", "data", protocoll="ct")
