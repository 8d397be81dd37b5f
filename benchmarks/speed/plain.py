"""The plain loop: each method as the published systems compute it. One image at a time, float32,
contiguous layout, the whole attention matrix at once, windows one after the other, parameters that
ask for gradients. Same weights, same noise.

Written from the papers' algorithms; what is not network (blending, map operators) is the package's
own, so that a comparison measures how networks are called and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.maps.morphology import harmonic_mean
from pseudohealthy.networks import blocks
from pseudohealthy.restorers.ct import CtPatched
from pseudohealthy.restorers.ddpm import Ddpm
from pseudohealthy.restorers.guided import Guided
from pseudohealthy.restorers.patched import Patched, masks
from pseudohealthy.restorers.thor import Thor


@contextmanager
def plainly(model: nn.Module) -> Iterator[None]:
    """Within: contiguous layout, attention without blocks, parameters with gradients."""
    kept = blocks.fast_layout, blocks.QUERY_ROWS
    blocks.fast_layout, blocks.QUERY_ROWS = torch.Tensor.contiguous, 10**9  # type: ignore[assignment]
    model.requires_grad_(True)
    try:
        yield
    finally:
        blocks.fast_layout, blocks.QUERY_ROWS = kept
        model.requires_grad_(False)


def restore(model: nn.Module, images: Tensor, draw: Draw) -> Tensor:
    """Healthy twins (B, C, S, S) of images (B, C, S, S), one after the other."""
    loops = {Guided: guided, Patched: patched, CtPatched: windows, Thor: thor}
    loop = next((found for kind, found in loops.items() if isinstance(model, kind)), partial)
    with plainly(model):
        keys = [Draw(draw.seed, [key]) for key in draw.keys]
        return torch.cat(
            [loop(model, images[i : i + 1], own) for i, own in enumerate(keys)]
        ).detach()


def guided(model: Guided, x: Tensor, draw: Draw) -> Tensor:
    """Wolleb et al. 2022, algorithm 1."""
    table, (up, down) = model.denoiser.schedule, model.walks()
    label = {"label": torch.zeros(1, dtype=torch.long)} if model.conditional else {}
    for now, then in pairwise(up):
        with torch.no_grad():
            noise = model.denoiser.network(x, torch.tensor([max(now - 1, 0)]), **label)[
                :, : model.channels
            ]
        a, s, b, r = (
            float(values[i]) for i in (now, then) for values in (table.signal, table.sigma)
        )
        clean = (x - s * noise) / a
        x = b * clean + r * noise
    for now, then in pairwise(down):
        step = torch.tensor([now - 1])
        a, s, b, r = (
            float(values[i]) for i in (now, then) for values in (table.signal, table.sigma)
        )
        with torch.no_grad():
            noise = model.denoiser.network(x, step, **label)[:, : model.channels]
            noise = (x - a * ((x - s * noise) / a).clamp(-1, 1)) / s
        state = x.detach().requires_grad_()
        chosen = model.classifier(state, step).log_softmax(1)[:, 0].sum()
        (gradient,) = torch.autograd.grad(chosen, state)
        noise = noise - model.scale * s * gradient
        x = b * (x - s * noise) / a + r * noise
    return x


@torch.no_grad()
def partial(model: Ddpm, x: Tensor, draw: Draw) -> Tensor:
    """Noise to each depth and walk back, one draw after the other; deterministic or ancestral as
    the model says."""
    found = []
    for depth in model.walk.start_levels:
        streams = model.noisy(draw.fork(f"depth {depth}")).repeat(model.walk.draws)
        for key in streams.keys:
            own = streams._like([key], streams._tags)
            state = model.denoiser.noised(x, own.noise(x), depth)
            found.append(walked(model, state, model.levels(depth), own))
    return torch.stack(found).mean(0)


def walked(model: Ddpm, x: Tensor, levels: list[int], draw: Draw) -> Tensor:
    """States from level to level, clean estimates kept in [-1, 1]."""
    table = model.denoiser.schedule
    for now, then in pairwise(levels):
        a, s, b, r = (
            float(values[i]) for i in (now, then) for values in (table.signal, table.sigma)
        )
        clean = model.denoiser(x, now).clean
        clean = clean.clamp(-1, 1) if model.walk.clip else clean
        noise = (x - a * clean) / s
        fresh = model.walk.eta * r / s * (1 - (a / b) ** 2) ** 0.5
        x = b * clean + max(r**2 - fresh**2, 0.0) ** 0.5 * noise
        x = x + fresh * draw.noise(x) if fresh else x
    return x


@torch.no_grad()
def thor(model: Thor, x: Tensor, draw: Draw) -> Tensor:
    """Bercea et al. 2024; the maps are computed, as they steer the walk."""
    images, copies = x, model.noisy(draw)
    first = copies.noise(x)
    x, levels, maps = model.denoiser.noised(x, first, model.start), model.levels(model.start), []
    for level in model.harmonised:
        here = levels.index(level)
        x = walked(model, x, levels[: here + 1], copies)
        clean = model.denoiser(x, level).clean.clamp(-1, 1)
        maps.append(model.difference(images, clean))
        x = model.denoiser.noised(model.blend(images, clean, maps[-1]), first, level)
        levels = levels[here:]
    harmonic_mean(torch.stack(maps))
    return walked(model, x, levels, copies)


@torch.no_grad()
def patched(model: Patched, x: Tensor, draw: Draw) -> Tensor:
    """Behrendt et al. 2023: one patch after the other, the whole image through the network each
    time."""
    trail = []
    for depth in model.walk.start_levels:
        boxes, cells = zip(*model.grid(*x.shape[-2:]), strict=True)
        streams = model.diffusion.noisy(draw.fork(f"depth {depth}")).repeat(
            model.walk.draws * len(boxes)
        )
        total, count = torch.zeros_like(x), torch.zeros_like(x)
        inside = masks(boxes, *x.shape[-2:])
        for index, key in enumerate(streams.keys):
            noise = streams._like([key], streams._tags).noise(x)
            box = index % len(boxes)
            mixed = torch.where(inside[box], model.denoiser.noised(x, noise, depth), x)
            patch = torch.where(inside[box], model.denoiser(mixed, depth).clean, x)
            cells[box].cut(total).add_(cells[box].cut(patch))
            cells[box].cut(count).add_(1)
        trail.append((total / count).clamp(-1, 1) if model.walk.clip else total / count)
    return torch.stack(trail).mean(0)


@torch.no_grad()
def windows(model: CtPatched, x: Tensor, draw: Draw) -> Tensor:
    """Loevlie et al. 2025: one window after the other, empty ones too."""
    trail = []
    for depth in model.walk.start_levels:
        boxes = model.grid(*x.shape[-2:])
        streams = draw.fork(f"depth {depth}").repeat(model.walk.draws * len(boxes))
        total, count = torch.zeros_like(x), torch.zeros_like(x)
        for index, key in enumerate(streams.keys):
            box = boxes[index % len(boxes)]
            truth = box.cut(x)
            noised = model.denoiser.noised(
                truth, streams._like([key], streams._tags).noise(truth), depth
            )
            clean = model.estimate([x[0]], [box], noised, depth)
            box.cut(total).add_(clean.clamp(-1, 1) if model.walk.clip else clean)
            box.cut(count).add_(1)
        trail.append(total / count)
    return torch.stack(trail).mean(0)
