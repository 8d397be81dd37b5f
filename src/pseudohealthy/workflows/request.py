"""A verb: a frozen dataclass of all that it is asked for, called as a function of the same
arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

Asked = ParamSpec("Asked")
Given = TypeVar("Given", covariant=True)


def verb(request: Callable[Asked, Callable[[], Given]]) -> Callable[Asked, Given]:
    """Return the function of a request, with its arguments, its help and its signature.

    Args:
        request: a class whose instances do the work when they are called.
    """

    @functools.wraps(request, updated=())
    def ask(*args: Asked.args, **kwargs: Asked.kwargs) -> Any:
        return request(*args, **kwargs)()

    ask.__name__ = ask.__qualname__ = ask.__name__.lower()
    return ask
