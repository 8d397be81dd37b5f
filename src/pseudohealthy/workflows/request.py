"""A verb is a frozen dataclass of all that it is asked for; called as a function it takes the same
arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

Asked = ParamSpec("Asked")
Given = TypeVar("Given", covariant=True)


def verb(request: Callable[Asked, Callable[[], Given]]) -> Callable[Asked, Given]:
    """The function of a request: with its arguments, its help and its signature.

    Args:
        request: a class whose instances do the work when they are called.
    """

    @functools.wraps(request, updated=())
    def ask(*given: Asked.args, **named: Asked.kwargs) -> Any:
        return request(*given, **named)()

    ask.__name__ = ask.__qualname__ = ask.__name__.lower()
    return ask
