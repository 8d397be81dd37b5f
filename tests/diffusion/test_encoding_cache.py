"""Shared encodings change nothing but time."""

from __future__ import annotations

import torch

from pseudohealthy.diffusion.encoding_cache import Encodings, content


def counting(calls):
    def move(x, levels):
        calls.append(list(levels))
        for level in levels[1:]:
            x = x * 1.5 + level
        return x

    return move


def test_a_longer_walk_goes_on_where_a_shorter_one_ended():
    calls, shared, x = [], Encodings(), torch.randn(2, 1, 4, 4)
    short = shared.encode(x, [0, 1, 2], counting(calls))
    assert torch.equal(shared.encode(x, [0, 1, 2], counting(calls)), short)
    long = shared.encode(x, [0, 1, 2, 5, 7], counting(calls))
    assert calls == [[0, 1, 2], [2, 5, 7]]
    assert torch.equal(long, counting([])(x, [0, 1, 2, 5, 7]))


def test_what_differs_is_not_shared():
    calls, shared, x = [], Encodings(), torch.randn(1, 1, 4, 4)
    for image, levels, settings in (
        (x, [0, 2], {}),
        (x + 1, [0, 2], {}),  # another image
        (x, [0, 3, 4], {}),  # other levels
        (x, [0, 2], {"how": "otherwise"}),
        (x, [0, 2, 4], {"remembers": True}),  # the state alone is not enough to go on from
    ):
        shared.encode(image, levels, counting(calls), **settings)
    assert calls == [[0, 2], [0, 2], [0, 3, 4], [0, 2], [0, 2, 4]]
    assert content(x) != content(x.double()) and content(x) != content(x.flatten())


def test_memory_is_bounded_and_results_are_the_same_without_it():
    calls, x = [], torch.randn(1, 1, 4, 4)
    shared = Encodings(most=x.nbytes)
    shared.encode(x, [0, 1], counting(calls))
    shared.encode(x + 1, [0, 1], counting(calls))
    shared.encode(x + 1, [0, 1], counting(calls))
    assert len(calls) == 3 and shared.size == x.nbytes
