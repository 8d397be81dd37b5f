"""Trivial controls: what a ruler, a light meter or a template would score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.restorers import REGISTRY
from pseudohealthy.restorers.base import Restorer
from pseudohealthy.restorers.controls import CONTROLS, HistogramIntensity, control_restorers

SIZE = 16


def images(count: int = 3, channels: int = 1) -> Tensor:
    x = (
        torch.rand(count, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        .mul(2)
        .sub(1)
    )
    x[..., :4, :] = -1
    return x


def maps(restorer: Restorer, x: Tensor) -> Tensor:
    found = restorer.restore(x, Draw(0, list(range(len(x))))).map
    assert found is not None
    return found


def test_equalised_intensity_is_the_share_of_tissue_no_brighter():
    x = images().mul(4).round().div(4)  # ties
    found = maps(HistogramIntensity(size=SIZE, channels=1), x)
    for image, got in zip(x[:, 0].numpy(), found.numpy(), strict=True):
        tissue = image > -1
        expected = stats.rankdata(image[tissue], method="max") / tissue.sum()
        np.testing.assert_allclose(got[tissue], expected, rtol=1e-6)
        assert (got[~tissue] == 0).all() and got.max() == 1


def test_equalisation_forgets_contrast_which_plain_intensity_does_not():
    x = images()
    dull = torch.where(x > -1, (x + 1) ** 2 / 8 - 0.9, x)  # monotonous: another scanner
    for name, same in (("histogram-intensity", True), ("intensity", False)):
        control = REGISTRY[name](size=SIZE, channels=1)
        assert torch.allclose(maps(control, x), maps(control, dull), atol=1e-6) is same


def test_an_empty_image_has_an_empty_map():
    assert (
        maps(HistogramIntensity(size=SIZE, channels=2), torch.full((2, 2, SIZE, SIZE), -1.0))
        .abs()
        .max()
        == 0
    )


@pytest.mark.parametrize("name", CONTROLS)
def test_controls_need_nothing_but_what_the_method_was_trained_beside(name):
    model = REGISTRY["identity"](size=SIZE, channels=2)
    model.healthy_mean.fill_(-0.25)
    control = control_restorers(model)[name]
    assert control.name == name and not control.parts() and control.network_calls() == 0
    assert (control.healthy_mean == -0.25).all() and control.size == SIZE and control.channels == 2
