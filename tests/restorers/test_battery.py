"""What every method must do, whichever it is. A new name in `REGISTRY` joins by itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from pseudohealthy.networks.perceptual import Perceptual
from pseudohealthy.restorers import REGISTRY
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.recipe import Recipe
from small import NETWORKS, SIZE, batch_of, build, images, recipe_of, restored

LINEAR = ("autoencoder", "cevae", "guided")  # nothing clips the last layer


# Parts whose loss another part works against: it need not fall
GAMES = {"fanogan": ("critic", "generator"), "fpgan": ("critic",)}


@pytest.fixture(params=sorted(REGISTRY))
def name(request) -> str:
    return request.param


def test_the_recipe_of_its_defaults_survives_writing_and_reading(name):
    resolved = Recipe("test", restorer={"name": name}).resolved()
    again = Recipe.parse(resolved.toml()).resolved()
    assert again == resolved
    assert "size" not in resolved.restorer  # the canvas decides


@pytest.mark.parametrize("channels", [1, 2])
def test_shape_and_range_are_kept(name, channels):
    """The twin of a picture in [-1, 1] lies there as well where something clips it, or keeps close
    to it."""
    x = images(3, channels=channels)
    found = restored(build(name, channels), x, [0, 1, 2])
    assert found["healthy"].shape == x.shape and found["healthy"].dtype == torch.float32
    assert found["healthy"].abs().max() <= (3 if name in LINEAR else 1)
    if "map" in found:
        assert found["map"].shape == (3, SIZE, SIZE) and found["map"].dtype == torch.float32
    if "score" in found:
        assert found["score"].shape == (3,)
    for key, values in found.items():
        assert torch.isfinite(values).all(), key


def test_an_item_depends_on_nothing_but_itself_and_its_draws(name):
    restorer, x = build(name), images(16)
    alone = restored(restorer, x, list(range(16)))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3)).tolist()
    for size in (1, 7, 16):
        for rows in (list(range(16)), order):
            parts = [rows[i : i + size] for i in range(0, 16, size)]
            together = [restored(restorer, x[part], part) for part in parts]
            for key, values in alone.items():
                got = torch.cat([part[key] for part in together])
                torch.testing.assert_close(got, values[rows], atol=1e-5, rtol=1e-5)


def test_images_come_back_untouched_by_restoring(name):
    x = images(2)
    before = x.clone()
    restored(build(name), x, [0, 1])
    assert torch.equal(x, before), "restore changed its input in place"


def test_saved_and_loaded_it_says_the_same(name, tmp_path):
    restorer, x = build(name), images(3)
    checkpoint.save(tmp_path / "w.safetensors", restorer.state_dict(), {})
    other = recipe_of(name).make_restorer()
    tensors, _, _ = checkpoint.load(tmp_path / "w.safetensors", expected=other.state_dict())
    other.load_state_dict(tensors)
    first, second = (restored(r.eval(), x, [0, 1, 2]) for r in (restorer, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_network_calls_is_the_number_of_network_calls(name):
    restorer = build(name)
    own = {
        kind
        for kind in restorer.nested.values()
        if issubclass(kind, nn.Module) and kind is not Perceptual
    }
    calls = 0

    def count(module: nn.Module, given: tuple, output: Any) -> None:
        nonlocal calls
        calls += len(given[0])

    for module in restorer.modules():
        kinds = type(module).__mro__
        if any(kind.__name__ in NETWORKS for kind in kinds) or {*kinds} & own:
            module.register_forward_hook(count)
    restored(restorer, images(3), [0, 1, 2])
    assert calls == 3 * restorer.network_calls()


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_part_learns_one_batch_by_heart(name):
    restorer = build(name)
    if not restorer.parts():
        with pytest.raises(TypeError):
            restorer.loss(batch_of(restorer, 2), "network")
        return
    restorer.train()
    optimisers = {
        part: torch.optim.AdamW(restorer.get_submodule(part).parameters(), lr=3e-3)
        for part in restorer.parts()
    }
    begun = copy.deepcopy(restorer.state_dict())
    history: dict[str, list[float]] = {part: [] for part in optimisers}
    for _ in range(25):
        for part, optimiser in optimisers.items():
            loss = restorer.loss(batch_of(restorer, 4), part)  # the same draws every time
            assert loss.shape == (4,) and torch.isfinite(loss).all()
            loss.mean().backward()
            optimiser.step()
            restorer.zero_grad(set_to_none=True)
            history[part].append(loss.mean().item())
    games = GAMES.get(name, ())
    assert set(games) < set(restorer.parts()), f"{name}: something must be learnt that is no game"
    for part, losses in history.items():
        if part not in games:
            assert losses[-1] < 0.9 * losses[0], (
                f"{name}.{part}: {losses[0]:.4f} to {losses[-1]:.4f}"
            )
        own = restorer.get_submodule(part).state_dict()
        moved = [k for k, v in own.items() if not torch.equal(v, begun[f"{part}.{k}"])]
        assert moved, f"{part} did not move"
