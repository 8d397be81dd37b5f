"""Patched diffusion on CT: what the network sees, what is learnt, what a window of air costs, what
the score counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import Fault
from pseudohealthy.interop import pretrained
from pseudohealthy.networks.ct_unet import CtUNet
from pseudohealthy.networks.ssim import ssim
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers import ct
from pseudohealthy.restorers.base import Batch
from pseudohealthy.restorers.ct import CtPatched
from pseudohealthy.restorers.patched import Box, masks
from small import merged

NETWORK = {"width": 16, "multipliers": (1, 2), "blocks": 1}


class Answer(nn.Module):
    """A network that answers with a function of what it sees, and remembers what it saw."""

    def __init__(self, function):
        super().__init__()
        self.function, self.seen = function, []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen.append(x)
        return self.function(x)


def restorer(function=None, *, size: int = 32, channels: int = 1, **options) -> CtPatched:
    options = merged({"windows": {"side": 16, "stride": 8}, "network": {"ct": NETWORK}}, options)
    # No patch is larger than the canvas; the images here may be.
    side = size if options["windows"]["side"] <= size else 64
    made = CtPatched(size=side, channels=channels, **options)
    if function is not None:
        made.denoiser.network = Answer(function)
    return made.eval()


def image(height: int, width: int, count: int = 1) -> Tensor:
    return (
        torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(height)) * 1.6
        - 0.8
    )


def draw(count: int = 1) -> Draw:
    return Draw(0, list(range(count)))


@st.composite
def tilings(draw):
    height, width, patch = (draw(st.integers(1, most)) for most in (40, 40, 48))
    context = draw(st.sampled_from([0, patch, patch + 7]))
    network = {"network": {"ct": {**NETWORK, "multipliers": (1,)}}}  # any side will do
    stride = draw(st.integers(max(1, patch // 4), patch))
    return (
        height,
        width,
        {"windows": {"side": patch, "stride": stride, "context": context}, **network},
    )


@torch.no_grad()
@given(tilings())
@settings(max_examples=25, deadline=None)
def test_every_pixel_is_the_networks_answer_and_a_perfect_network_is_the_identity(tiling):
    height, width, options = tiling
    truth = image(height, width)
    same = restorer(lambda x: x, walk={"draws": 2, "start_levels": (500, 250)}, **options)
    same.denoiser.noised = lambda clean, noise, t: clean
    torch.testing.assert_close(same.restore(truth, draw()).healthy, truth)
    other = restorer(lambda x: torch.full_like(x, 0.9), **options)
    torch.testing.assert_close(other.restore(truth, draw()).healthy, torch.full_like(truth, 0.9))


@torch.no_grad()
def test_the_published_windows_leave_a_border_that_the_stride_misses():
    model = restorer(
        lambda x: torch.zeros_like(x), quirks="published", reading={"score": "published"}, size=28
    )
    found, truth = model.restore(image(28, 36), draw()), image(28, 36)
    assert {(box.top, box.left) for box in model.grid(28, 36)} == {
        (y, x) for y in (0, 8) for x in (0, 8, 16)
    }
    assert (
        torch.equal(found.healthy[..., 24:, :], truth[..., 24:, :]) and not found.map[:, 24:].any()
    )
    assert not found.healthy[..., :24, :32].any() and not found.map[..., 32:].any()
    own = restorer(lambda x: torch.zeros_like(x), size=28)
    assert not own.restore(truth, draw()).healthy.any()


@torch.no_grad()
def test_the_published_grid_is_49_windows_and_its_only_noise_lies_in_one_of_them():
    model = restorer(lambda x: x, size=256, windows={"side": 64, "stride": 32})
    assert model.network_calls() == 49
    assert sorted({box.top for box in model.grid(256, 256)}) == list(range(0, 193, 32))
    truth, model = image(32, 32, 2), restorer(lambda x: x)
    model.restore(truth, draw(2))
    (seen,) = model.denoiser.network.seen
    assert seen.shape == (2 * 9, 1, 32, 32)
    changed = (seen.unflatten(0, (2, 9)) != truth[:, None])[:, :, 0]
    assert (changed == masks(model.grid(32, 32), 32, 32)[:, 0]).all()


@torch.no_grad()
def test_with_a_context_the_network_sees_only_what_lies_about_the_window():
    truth = image(32, 48)
    model = restorer(lambda x: x, windows={"side": 8, "stride": 8, "context": 16})
    model.denoiser.noised = lambda clean, noise, t: clean + 5
    model.restore(truth, draw())
    (seen,) = model.denoiser.network.seen
    assert seen.shape == (4 * 6, 1, 16, 16)
    assert ((seen > 3).flatten(1).sum(1) == 8 * 8).all()  # the whole window is among it
    inner = seen[6 * 1 + 2, 0]  # window at row 8, column 16, its context at 4, 12
    torch.testing.assert_close(inner, truth[0, 0, 4:20, 12:28] + 5 * (inner > 3))
    model.loss(Batch(truth, truth[:, 0] > -1, None, draw()), "denoiser")
    assert model.denoiser.network.seen[-1].shape == (1, 1, 16, 16)


@torch.no_grad()
def test_windows_at_once_and_the_batch_change_no_result():
    truth = image(32, 32, 3)
    torch.manual_seed(0)
    whole = restorer(walk={"draws": 2})
    found = whole.restore(truth, draw(3)).healthy
    parts = restorer(walk={"draws": 2}, windows={"at_once": 5})
    parts.load_state_dict(whole.state_dict())
    torch.testing.assert_close(parts.restore(truth, draw(3)).healthy, found, atol=1e-5, rtol=1e-5)
    alone = parts.restore(truth[1:2], Draw(0, [1])).healthy
    torch.testing.assert_close(alone, found[1:2], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_window_of_air_is_its_own_twin_and_costs_nothing_and_changes_no_other(monkeypatch):
    truth = torch.full((2, 1, 32, 32), -1.0)
    truth[0, :, 20:, 20:] = 0.5
    truth[1, :, :16, :16] = -0.9995  # air with rounding errors
    torch.manual_seed(0)
    model, calls = restorer(windows={"stride": 16}), []
    model.denoiser.network.register_forward_hook(
        lambda module, given, output: calls.append(len(output))
    )
    found = model.restore(truth, draw(2)).healthy
    assert sum(calls) == 1
    assert torch.equal(found[1], truth[1]) and torch.equal(found[0, :, :16], truth[0, :, :16])
    monkeypatch.setattr(ct, "EMPTY", -2.0)
    every = model.restore(truth, draw(2)).healthy
    assert sum(calls) == 1 + 2 * 4
    torch.testing.assert_close(every[0, :, 16:, 16:], found[0, :, 16:, 16:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_loss_is_mse_and_ssim_of_the_window_alone():
    truth, boxes = image(32, 32, 2), [Box(0, 16, 0, 16), Box(8, 24, 16, 32)]
    answer = torch.rand(2, 1, 32, 32)
    model = restorer(lambda x: answer, ssim_weight=0.5)
    got = model.patch_loss(truth, torch.randn(2, 1, 16, 16), torch.tensor([10, 900]), boxes)
    for loss, box, a, b in zip(got, boxes, answer, truth, strict=True):
        a, b = box.cut(a)[None], box.cut(b)[None]
        torch.testing.assert_close(loss[None], ((a - b) ** 2).mean()[None] + 0.5 * (1 - ssim(a, b)))


def test_training_windows_lie_anywhere_and_whole_and_levels_stop_where_told():
    boxes = restorer().training_boxes(Draw(0, list(range(2000))), 32, 48)
    assert {box.top for box in boxes} == set(range(17)) and {box.left for box in boxes} == set(
        range(33)
    )
    model, levels = restorer(diffusion={"max_level": 200}), []
    model.patch_loss = lambda images, noise, t, boxes: levels.extend(t.tolist())
    x = image(32, 32, 1000)
    model.loss(Batch(x, x[:, 0] > -1, None, draw(1000)), "denoiser")
    assert min(levels) >= 1 and 190 < max(levels) <= 200


def test_an_estimate_beyond_the_range_learns_and_in_the_published_form_does_not():
    truth, boxes = torch.zeros(1, 1, 32, 32), [Box(0, 16, 0, 16)]
    for quirks in ("none", "published"):
        bias = torch.tensor(1.5, requires_grad=True)
        model = restorer(lambda x, bias=bias: 0 * x + bias, quirks=quirks)
        model.patch_loss(
            truth, torch.zeros(1, 1, 16, 16), torch.tensor([10]), boxes
        ).sum().backward()
        assert (bias.grad == 0) == (quirks == "published")


def test_published_means_its_network_its_schedule_and_its_ssim():
    intended, published = restorer(), restorer(quirks="published")
    assert published.denoiser.network.published and not intended.denoiser.network.published
    assert published.denoiser.schedule.beta[1] == 1e-4 > intended.denoiser.schedule.beta[1]
    truth, boxes = image(32, 32), [Box(0, 16, 0, 16)]
    answer = truth + 0.1
    published.denoiser.network = Answer(lambda x: answer)
    loss = published.patch_loss(truth, torch.zeros(1, 1, 16, 16), torch.tensor([10]), boxes)
    likeness = ssim(*(boxes[0].cut(x) for x in (answer, truth)), data_range=1.0, border="zeros")
    torch.testing.assert_close(loss, 0.01 + 1 - likeness)


@torch.no_grad()
def test_the_published_score_counts_errors_of_windows_and_air_and_so_the_size_of_the_head():
    """Two windows that err in opposite directions: their mean is right, their errors are not."""
    model = restorer(
        lambda x: x + torch.tensor([0.2, -0.2]).repeat(len(x))[: len(x), None, None, None],
        reading={"score": "published"},
        windows={"stride": 16, "side": 16},
        walk={"clip": False},
    )
    model.denoiser.noised = lambda clean, noise, t: clean
    model.walk = replace(model.walk, draws=2)
    truth = image(16, 16)
    found = model.restore(truth, draw())
    torch.testing.assert_close(found.healthy, truth)
    torch.testing.assert_close(found.map, torch.full((1, 16, 16), 0.2))
    torch.testing.assert_close(found.score, torch.tensor([0.2]))
    scores = []
    for side in (8, 16):  # nothing is wrong with either but their size
        head = torch.full((1, 1, 32, 32), -1.0)
        head[..., :side, :side] = 0.2
        wrong = restorer(
            lambda x: torch.where(x > -0.9, x + 0.1, x), reading={"score": "published"}
        )
        wrong.denoiser.noised = lambda clean, noise, t: clean
        scores.append(wrong.restore(head, draw()).score.item())
    assert scores[1] == pytest.approx(4 * scores[0], rel=1e-4)
    assert restorer().restore(truth, draw()).score is None


@torch.no_grad()
def test_depths_and_draws_are_averaged():
    truth = torch.zeros(1, 1, 32, 32)

    def spread(**options) -> float:
        made = restorer(lambda x: x, windows={"stride": 16}, walk={"clip": False, **options})
        return made.restore(truth, draw()).healthy.std().item()

    assert spread(draws=16) == pytest.approx(spread() / 4, rel=0.15)
    assert spread(start_levels=(151,) * 2) == pytest.approx(spread())  # noise belongs to the level
    assert spread(start_levels=(151, 152)) < 0.8 * spread()


@torch.no_grad()
def test_symmetry_leaves_what_both_halves_have_in_the_twin():
    truth = torch.full((1, 1, 32, 32), -1.0)
    truth[..., 2:30, 4:28] = 0.0
    truth[..., 8:12, 6:10] = truth[..., 8:12, 22:26] = 0.8  # calcified on both sides
    truth[..., 20:24, 22:26] = 0.6  # a bleed
    residuals = []
    for symmetry in (False, True):
        model = restorer(lambda x: x.clamp(max=0), reading={"symmetry": symmetry})
        model.denoiser.noised = lambda clean, noise, t: clean
        residuals.append((truth - model.restore(truth, draw()).healthy)[0, 0])
    plain, less = residuals
    torch.testing.assert_close(plain.max(), torch.tensor(0.8))
    assert less[8:12].max() < 0.4 and less.min() >= 0  # no shadow across
    torch.testing.assert_close(less[20:24], plain[20:24])


def test_a_training_starts_from_given_weights_and_an_opened_run_does_not(monkeypatch):
    asked = []
    monkeypatch.setattr(
        pretrained, "start_from", lambda module, path: asked.append((type(module), path))
    )
    model = restorer(
        network={
            "architecture": "unet",
            "unet": {**NETWORK, "block": {"groups": 4}},
            "weights": "faces",
        }
    )
    assert not asked
    pretrained.begin(model)
    assert asked == [(UNet, "faces")]
    assert isinstance(restorer(network={"weights": "faces"}).denoiser.network, CtUNet)


@pytest.mark.parametrize(
    "wrong",
    [
        {"windows": {"side": 65}},
        {"windows": {"stride": 0}},
        {"windows": {"stride": 17}},
        {"windows": {"context": 8}},
        {"windows": {"at_once": 0}},
        {"walk": {"start_levels": ()}},
        {"walk": {"start_levels": (0,)}},
        {"walk": {"draws": 0}},
        {"diffusion": {"max_level": 100}},
        {"diffusion": {"max_level": 1001}},
        {"reading": {"symmetry": True, "score": "published"}},
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong):
    with pytest.raises(Fault, match="RECIPE"):
        restorer(**wrong)
