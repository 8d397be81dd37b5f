"""Fixed-Point GAN: healthy is 0 and is what is asked for; the losses are the paper's and stay in
their own network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blobs import SIDE, picture
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import Fault
from pseudohealthy.networks.adversarial import gradient_penalty
from pseudohealthy.restorers import restorer_class
from pseudohealthy.restorers.base import Batch
from pseudohealthy.restorers.fpgan import FixedPointGAN


def fpgan(size=8, channels=1, **settings):
    torch.manual_seed(0)
    given = {"generator": {"width": 8, "blocks": 1}, "critic": {"width": 8, "layers": 2}} | settings
    return FixedPointGAN(size=size, channels=channels, **given)


def draw(count, first=0):
    return Draw(0, [("case", i) for i in range(first, first + count)])


def batch(labels, size=8, channels=1, images=None, first=0):
    if images is None:
        generator = torch.Generator().manual_seed(first)
        images = torch.rand(len(labels), channels, size, size, generator=generator) * 2 - 1
    foreground = torch.ones(len(labels), *images.shape[2:], dtype=torch.bool)
    return Batch(images, foreground, torch.tensor(labels), draw(len(labels), first))


def blobs(count, seed):
    """Images (B, 1, SIDE, SIDE), masks of the white square that every other one has, and labels."""
    rng = np.random.default_rng(seed)
    drawn = [picture(rng, bright=bool(i % 2)) for i in range(count)]
    images, masks = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*drawn, strict=True))
    return images[:, None] / 127.5 - 1, masks, [i % 2 for i in range(count)]


def test_trained_on_labels_alone_it_takes_white_squares_away_when_asked_for_health():
    model = fpgan(SIDE, class_weight=5.0, cycle_weight=1.0, identity_weight=5.0).train()
    optimisers = {
        part: torch.optim.AdamW(model.get_submodule(part).parameters(), lr=2e-3, betas=(0.5, 0.999))
        for part in model.parts()
    }
    images, _, labels = blobs(128, 0)
    for step in range(80):
        rows = slice(step * 8 % 128, step * 8 % 128 + 8)
        for part, optimiser in optimisers.items():
            model.loss(
                batch(labels[rows], images=images[rows], first=8 * step), part
            ).mean().backward()
            optimiser.step()
            model.zero_grad(set_to_none=True)
    images, masks, _ = blobs(32, 1)
    with torch.no_grad():
        healthy = (images - model.eval().restore(images, draw(32)).healthy)[:, 0]
        ill = (images - model.generator(images, torch.full((32,), ANOMALOUS)))[:, 0]
    inside = healthy[masks].mean()
    assert inside > 0.7, "tanh alone takes 0.2 off white"
    assert inside > 2.5 * healthy[~masks].abs().mean()
    assert inside > 1.5 * ill[masks].mean()


def test_healthy_is_0_and_is_what_the_generator_is_asked_for():
    assert HEALTHY == 0
    model, asked = fpgan().eval(), []
    model.generator.register_forward_hook(
        lambda module, given, output: asked.extend(given[1].tolist())
    )
    model.restore(batch([1, 1]).images, draw(2))
    assert asked == [HEALTHY, HEALTHY]


def test_a_translator_that_changes_nothing_gives_tanh_of_the_image():
    model, x = fpgan().eval(), batch([0, 1]).images
    torch.nn.init.zeros_(model.generator.change[-1].weight)
    assert torch.equal(model.restore(x, draw(2)).healthy, torch.tanh(x))


@pytest.mark.parametrize("part", ["critic", "generator"])
def test_each_loss_reaches_its_own_network_alone(part):
    model = fpgan().train()
    loss = model.loss(batch([0, 1, 1]), part)
    assert loss.shape == (3,)
    loss.mean().backward()
    reached = {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {part}
    assert all(p.grad is not None for p in model.get_submodule(part).parameters()), (
        "a weight without gradient"
    )


@pytest.mark.parametrize("part", ["critic", "generator"])
def test_the_loss_of_an_item_is_its_own(part):
    model, both = fpgan().train(), batch([0, 1])
    alone = [
        model.loss(
            Batch(
                both.images[i : i + 1],
                both.foreground[i : i + 1],
                both.labels[i : i + 1],
                draw(1, i),
            ),
            part,
        )
        for i in range(2)
    ]
    torch.testing.assert_close(model.loss(both, part), torch.cat(alone))


def test_without_weights_the_generators_loss_is_the_critics_verdict_on_both_translations():
    model = fpgan(class_weight=0.0, cycle_weight=0.0, identity_weight=0.0).train()
    given = batch([0, 1])
    verdicts = [
        model.critic(model.generator(given.images, label))[0]
        for label in (given.labels, 1 - given.labels)
    ]
    torch.testing.assert_close(model.loss(given, "generator"), -sum(verdicts))


def test_validation_looks_at_what_restoring_rests_on_and_not_at_the_game():
    model, given = fpgan(cycle_weight=0.0, identity_weight=2.0), batch([0, 0])
    model.eval()
    changed = (model.restore(given.images, draw(2)).healthy - given.images).abs().flatten(1).mean(1)
    torch.testing.assert_close(model.loss(given, "generator"), 2 * changed)
    assert not model.loss(given, "critic").any()


def test_the_gradient_penalty_of_a_linear_score_is_known():
    """The gradient of 3 x_0 + 4 x_1 has norm 5 everywhere, so the penalty is 16."""
    weights = torch.tensor([3.0, 4.0, 0.0, 0.0])
    found = gradient_penalty(
        lambda x: x.flatten(1) @ weights,
        torch.rand(3, 1, 2, 2),
        torch.rand(3, 1, 2, 2),
        torch.rand(3),
    )
    torch.testing.assert_close(found, torch.full((3,), 16.0))


def test_the_gradient_penalty_is_taken_between_real_and_fake():
    """The gradient of x^2 / 2 is x: at a fourth of the way from 2 to 6 it is 3."""
    real, fake = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 6.0)
    found = gradient_penalty(
        lambda x: x.square().flatten(1).sum(1) / 2, real, fake, torch.tensor([0.25])
    )
    torch.testing.assert_close(found, torch.tensor([4.0]))


def test_the_gradient_penalty_keeps_float32_inside_bf16():
    model, real, fake = fpgan(), batch([0, 1]).images, batch([0, 1], first=2).images
    score, share = (lambda x: model.critic(x)[0]), torch.tensor([0.3, 0.6])
    exact = gradient_penalty(score, real, fake, share)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.equal(gradient_penalty(score, real, fake, share), exact)


def test_both_parts_train_under_bf16():
    model = fpgan().train()
    for part in model.parts():
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(batch([0, 1]), part)
        loss.mean().backward()
        assert loss.dtype == torch.float32
        gradients = [p.grad for p in model.get_submodule(part).parameters()]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert sum(bool(gradient.any()) for gradient in gradients) > len(gradients) / 2, part
        model.zero_grad(set_to_none=True)


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (12, 2), (20, 3), (16, 4)])
def test_any_size_that_4_divides_and_one_to_four_channels(size, channels):
    model, given = fpgan(size, channels).train(), batch([0, 1], size, channels)
    losses = [model.loss(given, part) for part in model.parts()]
    assert len(losses) == 2 and all(loss.shape == (2,) and loss.isfinite().all() for loss in losses)
    assert all(loss.abs().max() > 0 for loss in losses)
    twins = model.eval().restore(given.images, draw(2)).healthy
    assert twins.shape == given.images.shape and twins.abs().max() <= 1


@pytest.mark.parametrize(
    ("size", "settings"), [(10, {}), (4, {}), (8, {"critic": {"width": 8, "layers": 4}})]
)
def test_a_size_that_does_not_fit_is_refused(size, settings):
    with pytest.raises(Fault, match=f"size = {size}|size {size}"):
        fpgan(size, **settings)


@pytest.mark.parametrize("part", ["critic", "generator"])
def test_an_unlabelled_plane_is_refused(part):
    with pytest.raises(Fault, match="NO_LABELS"):
        fpgan().loss(batch([0, -1]), part)


def test_it_is_registered_and_learns_from_labels():
    assert restorer_class("fpgan") is FixedPointGAN and FixedPointGAN.uses_labels
