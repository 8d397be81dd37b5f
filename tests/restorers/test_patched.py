"""Patched diffusion: where patches lie, what the network sees, what is learnt, how patches become
one image again."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import Fault
from pseudohealthy.networks.ssim import ssim
from pseudohealthy.restorers import patched
from pseudohealthy.restorers.base import Batch
from pseudohealthy.restorers.patched import Box, Patched
from small import merged

NETWORK = {
    "width": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "block": {"scale_shift": True, "groups": 4},
}


class Answer(nn.Module):
    """A network that answers with a function of what it sees, and remembers what it saw."""

    def __init__(self, function):
        super().__init__()
        self.function, self.seen = function, []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen.append(x)
        return self.function(x)


def restorer(function=None, *, size: int = 32, **options) -> Patched:
    # No patch is larger than the canvas; the images here may be.
    side = size if options.get("patches", {}).get("side", 48) <= size else 64
    made = Patched(
        size=side,
        channels=1,
        network=NETWORK,
        **merged({"diffusion": {"noise": "gaussian"}}, options),
    )
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
    """(height, width, settings) of any patch size and overlap, patches larger than the image
    included."""
    height, width, patch = (draw(st.integers(1, most)) for most in (40, 40, 48))
    overlap = draw(st.sampled_from(["none", "cut", "average"]))
    stride = 0 if overlap == "none" else draw(st.integers(max(1, patch // 4), patch))
    return height, width, {"patches": {"side": patch, "overlap": overlap, "stride": stride}}


@torch.no_grad()
@given(tilings(), st.sampled_from(["none", "published"]))
@settings(max_examples=60, deadline=None)
def test_a_perfect_network_stitches_to_the_identity(tiling, quirks):
    height, width, options = tiling
    truth = image(height, width)
    model = restorer(
        lambda x: truth.expand_as(x),
        walk={"draws": 2, "start_levels": (500, 250)},
        quirks=quirks,
        **options,
    )
    torch.testing.assert_close(model.restore(truth, draw()).healthy, truth)


@torch.no_grad()
@given(tilings())
@settings(max_examples=60, deadline=None)
def test_every_pixel_is_the_networks_answer_not_the_input(tiling):
    height, width, options = tiling
    truth = image(height, width)
    model = restorer(lambda x: -truth.expand_as(x), **options)
    torch.testing.assert_close(model.restore(truth, draw()).healthy, -truth)


@torch.no_grad()
def test_published_cut_leaves_strips_of_input_and_the_intended_one_does_not():
    """40 of 96 with overlap: boxes start at 0, 28, 56, but the published cells at 0, 40, 80."""
    truth = torch.full((1, 1, 96, 96), 0.5)
    kept = {}
    for quirks in ("none", "published"):
        model = restorer(
            lambda x: -x,
            patches={"side": 40, "overlap": "cut"},
            quirks=quirks,
            diffusion={"noise": "gaussian"},
            size=96,
        )
        model.denoiser.network = Answer(lambda x: torch.full_like(x, -0.5))
        kept[quirks] = (model.restore(truth, draw()).healthy == 0.5).float().mean().item()
    assert kept["none"] == 0
    assert kept["published"] == pytest.approx(1 - (84 / 96) ** 2)


def test_boxes_of_the_published_settings():
    def boxes(height, width, **options):
        return [tuple(box) for box, _ in restorer(**options).grid(height, width)]

    assert boxes(96, 96, patches={"side": 48}) == [
        (0, 48, 0, 48),
        (0, 48, 48, 96),
        (48, 96, 0, 48),
        (48, 96, 48, 96),
    ]
    assert [b[2:] for b in boxes(60, 96, patches={"side": 60, "overlap": "cut"})] == [
        (0, 60),
        (36, 96),
    ]
    # The second is cut off by the border.
    assert [b[2:] for b in boxes(64, 96, patches={"side": 64})] == [(0, 64), (64, 128)]
    ct = boxes(256, 256, patches={"side": 64, "stride": 32, "overlap": "average"})
    assert len(ct) == 49 and sorted({b[0] for b in ct}) == list(range(0, 193, 32))


@torch.no_grad()
def test_the_network_sees_noise_in_one_patch_and_clean_surroundings():
    truth = image(32, 32, 2)
    model = restorer(lambda x: x, patches={"side": 16})
    model.restore(truth, draw(2))
    (seen,) = model.denoiser.network.seen  # all patches of all images in one call
    assert seen.shape == (2 * 4, 1, 32, 32)
    for index, (box, _) in enumerate(model.grid(32, 32)):
        inside = patched.masks([box], 32, 32)[0, 0]
        changed = (seen[index::4] != truth)[:, 0]
        assert (changed == inside).all()


@torch.no_grad()
def test_many_patches_go_through_the_network_in_several_calls_with_the_same_result(monkeypatch):
    truth = image(32, 32, 3)
    model = restorer(patches={"side": 8, "overlap": "average", "stride": 4})
    for parameter in model.denoiser.parameters():
        nn.init.normal_(parameter, std=0.1)
    whole = model.restore(truth, draw(3)).healthy
    monkeypatch.setattr(patched, "PIXELS", 5 * 32 * 32)
    torch.testing.assert_close(model.restore(truth, draw(3)).healthy, whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("quirks", ["none", "published"])
def test_noise_belongs_to_slice_and_patch_unless_published(quirks):
    truth = torch.zeros(3, 1, 32, 32)
    model = restorer(
        lambda x: x, patches={"side": 16}, diffusion={"noise": "simplex"}, quirks=quirks
    )
    model.restore(truth, draw(3))
    patches = [
        box.cut(x)
        for x, (box, _) in zip(model.denoiser.network.seen[0], 3 * model.grid(32, 32), strict=True)
    ]
    slices_alike = all(torch.equal(patches[k], patches[4 + k]) for k in range(4))
    assert slices_alike == (quirks == "published")


def test_the_published_field_does_not_depend_on_the_batch_and_each_step_has_its_own():
    like = torch.zeros(2, 1, 16, 16)
    first, second = (
        patched.shared_fields(Draw(0, keys), like, "depth 500") for keys in ([1, 2], [2])
    )
    assert torch.equal(first, second)
    steps = [patched.shared_fields(Draw(0, [key]), like, ("training", key)) for key in (0, 1)]
    assert not torch.equal(*steps)
    assert torch.equal(first, first.half().float())  # float16, as published


@torch.no_grad()
def test_the_loss_is_the_patch_error_and_the_published_one_is_diluted_by_the_surroundings():
    truth = image(96, 96, 4)
    wrong = {
        quirks: restorer(lambda x: truth + 0.25, patches={"side": 48}, quirks=quirks, size=96)
        for quirks in ("none", "published")
    }
    batch = Batch(truth, truth[:, 0] > -1, None, draw(4))
    losses = {quirks: model.loss(batch, "denoiser") for quirks, model in wrong.items()}
    torch.testing.assert_close(losses["none"], torch.full((4,), 0.25))
    torch.testing.assert_close(losses["published"], torch.full((4,), 0.25 / 4))


@torch.no_grad()
def test_mse_and_ssim_are_of_the_patch_alone():
    truth, boxes = image(32, 32, 2), [Box(0, 16, 0, 16), Box(8, 24, 16, 32)]
    answer = torch.rand(2, 1, 32, 32)
    model = restorer(lambda x: answer, patches={"side": 16}, objective="mse+ssim", ssim_weight=0.5)
    got = model.patch_loss(truth, torch.randn_like(truth), torch.tensor([10, 900]), boxes)
    for loss, box, a, b in zip(got, boxes, answer, truth, strict=True):
        a, b = box.cut(a)[None], box.cut(b)[None]
        torch.testing.assert_close(loss[None], ((a - b) ** 2).mean()[None] + 0.5 * (1 - ssim(a, b)))


def test_random_boxes_are_whole_and_the_published_ones_overhang():
    keys = Draw(0, list(range(2000)))
    intended = restorer(patches={"side": 16, "sampling": "random"}).training_boxes(keys, 32, 48)
    tops, lefts = {box.top for box in intended}, {box.left for box in intended}
    assert tops == set(range(17)) and lefts == set(range(33))
    official = restorer(
        patches={"side": 16, "sampling": "random"}, quirks="published"
    ).training_boxes(keys, 32, 48)
    assert {box.top for box in official} == set(range(32)) and {
        box.left for box in official
    } == set(range(48))
    assert patched.masks(official, 32, 48).flatten(1).sum(1).min() < 16  # slivers in a corner


def test_grid_sampling_draws_every_box_of_the_grid():
    model = restorer(patches={"side": 20, "overlap": "cut"})
    drawn = model.training_boxes(Draw(0, list(range(200))), 32, 32)
    assert set(drawn) == {box for box, _ in model.grid(32, 32)}


@torch.no_grad()
def test_draws_are_averaged():
    truth = torch.zeros(1, 1, 32, 32)

    def spread(draws: int) -> float:
        return (
            restorer(lambda x: x, patches={"side": 16}, walk={"draws": draws, "clip": False})
            .restore(truth, draw())
            .healthy.std()
            .item()
        )

    assert spread(16) == pytest.approx(spread(1) / 4, rel=0.1)


@torch.no_grad()
def test_the_twin_stays_in_range_when_clipped():
    found = [
        restorer(lambda x: x + 3, patches={"side": 16}, walk={"clip": clip})
        .restore(image(32, 32), draw())
        .healthy
        for clip in (True, False)
    ]
    assert found[0].max() == 1 and found[1].max() > 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"patches": {"stride": 8}},
        {"patches": {"stride": 64, "overlap": "cut"}},
        {"patches": {"side": 0}},
        {"patches": {"side": 65}},
        {"walk": {"start_levels": (0,)}},
        {"walk": {"start_levels": (1001,)}},
        {"walk": {"draws": 0}},
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong):
    with pytest.raises(Fault, match="RECIPE"):
        restorer(**wrong)
