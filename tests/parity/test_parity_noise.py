"""Schedules and simplex noise of the published codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pseudohealthy.diffusion.schedule import Schedule
from pseudohealthy.diffusion.simplex import permutation, simplex, values


@pytest.mark.parametrize(
    ("prefix", "settings"),
    [
        ("linear", {}),
        ("cosine_max999", {}),
        ("cosine_min1e4_max999", {"floor": 1e-4}),
        ("linear_float32", {}),
    ],
)
def test_schedules(parity, prefix, settings):
    case = parity("schedules")
    schedule = Schedule(prefix.split("_")[0], 1000, **settings)
    own = {
        "betas": schedule.beta,
        "alphas_cumprod": schedule.alpha_bar,
        "alphas_cumprod_prev": schedule.alpha_bar.roll(1),
        "posterior_variance": schedule.posterior_variance,
        "posterior_log_variance_clipped": schedule.posterior_log_variance,
        "posterior_mean_coef1": schedule.posterior_clean,
        "posterior_mean_coef2": schedule.posterior_state,
        "alphas_cumprod_float32_as_published": schedule.alpha_bar,
    }
    levels = torch.from_numpy(case.arrays["t"]) + 1
    tables = case.tensors(prefix)
    tolerance = case.info["tolerance"]
    assert tables
    for name, table in tables.items():
        double = table.dtype == torch.float64
        rtol = tolerance["float64"]["cosine_rtol" if "cosine" in prefix else "rtol"]
        rtol = rtol if double else tolerance["float32"]["rtol"]
        # A table made in float32 loses digits where 1 - beta is small, at the last few of 1000
        # steps.
        atol = 1e-14 if double else 1e-8
        torch.testing.assert_close(
            own[name][levels], table, rtol=rtol, atol=atol, check_dtype=False
        )


def test_simplex_noise(parity):
    case = parity("simplex_noise")
    tolerance = case.info["tolerance"]
    place = torch.from_numpy(case.arrays["points"]).T
    for seed in case.info["seeds"]:
        tables = case.tensors(f"seed_{seed}")
        table = permutation(seed)
        assert torch.equal(table, tables.pop("perm"))
        # The published index counts numbers.
        assert torch.equal(3 * (table % 24), tables.pop("perm_grad_index3"))
        for dims in (2, 3):
            got = values(place[:dims], table[None])[0]
            torch.testing.assert_close(
                got, tables.pop(f"noise{dims}"), rtol=0, atol=tolerance[f"noise{dims}"]["atol"]
            )
        assert tables
        for (
            name,
            field,
        ) in tables.items():  # octaves2d_64, octaves3d_96_t250, octaves2d_16_o3_p5_f32
            got = simplex((1, 1, *field.shape), [seed], **octave_settings(name))[0, 0]
            torch.testing.assert_close(got, field, rtol=0, atol=tolerance["fields"]["atol"])


def octave_settings(name):
    settings = {}
    for part in name.split("_")[2:]:
        key, number = part[0], float(part[1:])
        settings |= {
            "t": {"z": number},
            "o": {"octaves": int(number)},
            "p": {"persistence": number / 10},
            "f": {"frequency": number},
        }[key]
    return settings


@pytest.mark.parametrize("dims", [2, 3])
def test_simplex_statistics(parity, dims):
    case = parity("simplex_noise")
    (name,) = (name for name in case.tensors("stats") if name.startswith(f"per_seed_{dims}d"))
    z = float(name.split("_t")[1]) if dims == 3 else None  # per_seed_2d, per_seed_3d_t200
    first, last = case.info["statistics"]["seeds"]
    size = case.info["statistics"]["size"]
    published = case.arrays[f"stats.{name}"]
    # Every eighth: the others are alike.
    seeds = list(range(first, last + 1))[:: 1 + len(published) // 25]
    fields = simplex((len(seeds), 1, size, size), seeds, z=z).double().flatten(1).numpy()
    got = np.stack([fields.mean(1), fields.std(1), fields.min(1), fields.max(1)], axis=1)
    # Our fields are float32; the tolerance of the case is for float64.
    np.testing.assert_allclose(got, published[[s - first for s in seeds]], atol=2e-7)
