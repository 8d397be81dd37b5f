"""Guided translation: towards health, nowhere else; against closed forms where the answer is
known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.diffusion.encoding_cache import Encodings
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.schedule import Schedule
from pseudohealthy.errors import Fault
from pseudohealthy.restorers import restorer_class
from pseudohealthy.restorers.base import Batch
from pseudohealthy.restorers.guided import Guided

LINEAR = Schedule("linear", 1000)
TINY = {"width": 8, "multipliers": (1, 2), "blocks": 1, "block": {"scale_shift": True, "groups": 4}}
NOISY = {
    "width": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention": {"at": (2,), "head_channels": 8},
    "block": {"groups": 4},
}


def guided(size=8, channels=1, **settings):
    torch.manual_seed(0)
    model = Guided(size=size, channels=channels, network=TINY, classifier=NOISY, **settings)
    for parameter in model.parameters():  # zero-initialised layers would make every answer zero
        nn.init.normal_(parameter, std=0.05) if not parameter.any() else None
    return model.eval().requires_grad_(False)


def draw(count, first=0):
    return Draw(0, [("case", i) for i in range(first, first + count)])


class TwoKinds(nn.Module):
    """Exact answers for images whose pixels are N(mean of the kind, variance), healthy and diseased
    equally frequent."""

    def __init__(self, means=(-0.4, 0.4), variance=0.04):
        super().__init__()
        self.means, self.variance, self.asked, self.labels = means, variance, [], []

    def moments(self, t, x):
        a, s = LINEAR.at(t + 1, x)
        return a, s, a**2 * self.variance + s**2

    def logits(self, x, t):
        a, _, total = self.moments(t, x)
        return torch.stack(
            [-((x - a * m) ** 2 / (2 * total)).flatten(1).sum(1) for m in self.means], 1
        )


class Network(TwoKinds):
    def forward(self, x, t, label=None):
        self.labels.append(label)
        a, s, total = self.moments(t, x)
        share = self.logits(x, t).softmax(1)
        clean = sum(
            w[:, None, None, None] * (m + a * self.variance / total * (x - a * m))
            for w, m in zip(share.unbind(1), self.means, strict=True)
        )
        return torch.cat([(x - a * clean) / s, torch.full_like(x, -1)], 1)


class Judge(TwoKinds):
    def forward(self, x, t):
        self.asked.append(t.tolist())
        return self.logits(x, t)


def exact(**settings):
    means = settings.pop("means", (-0.4, 0.4))
    model = Guided(size=8, channels=1, network=TINY, classifier=NOISY, **settings)
    model.denoiser.network, model.classifier = Network(means), Judge(means)
    return model.eval()


def images(mean, count=2):
    return (
        mean + 0.2 * torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    ).clamp(-0.95, 0.95)


def test_healthy_is_0_and_is_what_networks_are_asked_for():
    assert HEALTHY == 0
    model = exact(walk={"start_levels": 20}, guidance={"scale": 1.0})
    model.restore(images(0.4), draw(2))
    assert set(model.denoiser.network.labels) == {HEALTHY}
    assert (
        len(model.denoiser.network.labels) + len(model.classifier.asked)
        == model.network_calls()
        == 60
    )


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_guidance_turns_a_diseased_image_into_a_healthy_one(sampler):
    model = exact(walk={"start_levels": 500}, guidance={"scale": 1.0, "sampler": sampler})
    twins = model.restore(images(0.4), draw(2)).healthy
    assert twins.flatten(1).mean(1).sub(-0.4).abs().max() < 0.1
    assert (model.classifier(twins, torch.zeros(2, dtype=torch.long)).argmax(1) == HEALTHY).all()


def test_without_guidance_the_image_comes_back():
    model = exact(walk={"start_levels": 500}, guidance={"scale": 0.0})
    assert (model.restore(images(0.4), draw(2)).healthy - images(0.4)).abs().max() < 0.02
    assert not model.classifier.asked and model.network_calls() == 1000


def test_a_healthy_image_stays_as_it_is():
    twins = (
        exact(walk={"start_levels": 500}, guidance={"scale": 1.0})
        .restore(images(-0.4), draw(2))
        .healthy
    )
    assert (twins - images(-0.4)).abs().max() < 0.02


def test_more_guidance_means_more_change():
    changes = [
        (
            images(0.4)
            - exact(walk={"start_levels": 300, "calls": 50}, guidance={"scale": s})
            .restore(images(0.4), draw(2))
            .healthy
        )
        .mean()
        .item()
        for s in (0.0, 0.3, 1.0)
    ]
    assert abs(changes[0]) < 0.05 < changes[1] < changes[2]


def test_skipping_levels_tells_the_classifier_the_true_level():
    model = exact(walk={"start_levels": 500, "calls": 5}, guidance={"scale": 1.0})
    model.restore(images(0.4), draw(2))
    assert [t[0] for t in model.classifier.asked] == [499, 399, 299, 199, 99]
    assert model.network_calls() == 15


@pytest.mark.parametrize(
    ("size", "channels", "data_range"), [(8, 1, "signed"), (12, 2, "unit"), (16, 4, "unit")]
)
def test_any_size_and_channels_and_an_item_does_not_depend_on_its_batch(size, channels, data_range):
    for sampler in ("ddim", "ddpm"):
        settings = {
            "walk": {"start_levels": 6},
            "guidance": {"scale": 5.0, "sampler": sampler, "data_range": data_range},
        }
        model = guided(size, channels, **settings)
        x = torch.rand(3, channels, size, size) * 2 - 1
        together = model.restore(x, draw(3)).healthy
        assert together.shape == x.shape
        alone = torch.cat([model.restore(x[i : i + 1], draw(1, i)).healthy for i in range(3)])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_ddim_is_deterministic_and_the_published_noise_is_not():
    calm = guided(walk={"start_levels": 6}, guidance={"scale": 0.0})
    published = guided(walk={"start_levels": 6}, guidance={"scale": 0.0}, quirks="published")
    x = torch.rand(1, 1, 8, 8)
    assert torch.equal(calm.restore(x, draw(1)).healthy, calm.restore(x, draw(1, 5)).healthy)
    assert not torch.equal(
        published.restore(x, draw(1)).healthy, published.restore(x, draw(1, 5)).healthy
    )


def test_the_aligned_round_trip_is_several_times_closer_than_the_published_one():
    x = images(0.4, 8)
    error = {
        quirks: (
            exact(walk={"start_levels": 500}, guidance={"scale": 0.0}, quirks=quirks)
            .restore(x, draw(8))
            .healthy
            - x
        )
        .square()
        .mean()
        .sqrt()
        for quirks in ("none", "published")
    }
    assert error["none"] < 0.005 and error["published"] > 2 * error["none"]


def test_the_ablation_starts_at_its_own_level_and_the_published_one_at_500():
    """From a depth of 20 little is lost; a state of level 500 walked back as if it were of level 20
    is lost."""
    x = images(0.4, 8)
    error = {
        quirks: (
            exact(
                walk={"start_levels": 20}, guidance={"scale": 0.0, "sampler": "ddpm"}, quirks=quirks
            )
            .restore(x, draw(8))
            .healthy
            - x
        )
        .abs()
        .mean()
        for quirks in ("none", "published")
    }
    assert error["none"] < 0.1 < 0.4 < error["published"]


def test_unit_range_estimates_stay_in_it_and_the_published_ones_do_not():
    x = torch.full((1, 1, 8, 8), -3.0)
    model, published = (
        exact(walk={"start_levels": 9}, guidance={"data_range": "unit"}, quirks=q, means=(0.1, 0.4))
        for q in ("none", "published")
    )
    assert model.estimate(x, 300, label=0).clean.min() == 0
    assert published.estimate(x, 300, label=0).clean.min() < -0.01


def batch(labels, size=8, channels=1):
    x = torch.rand(len(labels), channels, size, size) * 2 - 1
    return Batch(
        x,
        torch.ones(len(labels), size, size, dtype=torch.bool),
        torch.tensor(labels),
        draw(len(labels)),
    )


def test_each_part_has_a_loss_per_item_that_reaches_its_own_weights():
    model = guided().requires_grad_()
    for part in model.parts():
        loss = model.loss(batch([0, 1, 1]), part)
        assert loss.shape == (3,)
        loss.mean().backward()
        own = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert own and all(name.startswith(part) for name in own)
        model.zero_grad(set_to_none=True)


def test_labels_reach_the_denoiser():
    model, same = guided(), batch([0, 0])
    other = Batch(same.images, same.foreground, torch.tensor([1, 0]), draw(2))
    same.draw = draw(2)
    first, second = model.loss(same, "denoiser"), model.loss(other, "denoiser")
    assert first[0] != second[0] and first[1] == second[1]


def test_an_unlabelled_plane_is_refused():
    with pytest.raises(Fault, match="NO_LABELS"):
        guided().loss(batch([0, -1]), "classifier")


@pytest.mark.parametrize(
    "settings",
    [
        {"walk": {"start_levels": 0}},
        {"walk": {"start_levels": 1001}},
        {"walk": {"start_levels": 1000}, "quirks": "published"},
    ],
)
def test_a_depth_outside_the_schedule_is_refused(settings):
    with pytest.raises(Fault, match=r"walk\.start_levels = "):
        Guided(size=8, channels=1, network=TINY, classifier=NOISY, **settings)


def test_it_is_registered_and_learns_from_labels():
    assert restorer_class("guided") is Guided and Guided.uses_labels


def test_scales_and_depths_that_share_encodings_give_what_each_gives_alone():
    x, shared = images(0.2), Encodings()
    for depth in (6, 12):
        for scale in (0.0, 5.0):
            alone = guided(walk={"start_levels": depth}, guidance={"scale": scale})
            together = guided(walk={"start_levels": depth}, guidance={"scale": scale})
            together.encodings = shared
            assert torch.equal(
                together.restore(x, draw(2)).healthy, alone.restore(x, draw(2)).healthy
            )
    assert sum(map(len, shared.kept.values())) == 2, (
        "one encoding for each depth, none for each scale"
    )


def test_second_order_comes_nearer_to_every_level_with_as_few_calls():
    x = images(0.4)
    fine = exact(walk={"start_levels": 250}, guidance={"scale": 1.0}).restore(x, draw(2)).healthy
    few = [
        exact(walk={"start_levels": 250, "calls": 10, "order": order}, guidance={"scale": 1.0})
        for order in (1, 2)
    ]
    errors = [(model.restore(x, draw(2)).healthy - fine).abs().mean() for model in few]
    assert errors[1] < errors[0] / 2
    assert few[0].network_calls() == few[1].network_calls()


def test_second_order_is_refused_for_the_random_sampler():
    with pytest.raises(Fault, match="order"):
        guided(walk={"order": 2}, guidance={"sampler": "ddpm"})
