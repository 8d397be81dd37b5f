"""f-AnoGAN: twins are images the generator can make; every loss stays in its own network."""

from __future__ import annotations

import pytest
import torch

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import Fault
from pseudohealthy.restorers import restorer_class
from pseudohealthy.restorers.base import Batch
from pseudohealthy.restorers.fanogan import FAnoGAN

PARTS = ("critic", "generator", "encoder")


def fanogan(size=8, channels=1, **settings):
    torch.manual_seed(0)
    given = {part: {"width": 8} for part in PARTS} | {"latent": 4} | settings
    return FAnoGAN(size=size, channels=channels, **given)


def draw(count, first=0):
    return Draw(0, [("case", i) for i in range(first, first + count)])


def batch(count=2, size=8, channels=1):
    x = torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Batch(x, torch.ones(count, size, size, dtype=torch.bool), None, draw(count))


def squared(a, b):
    return (a - b).square().flatten(1).mean(1)


@pytest.mark.parametrize("part", PARTS)
def test_each_loss_reaches_its_own_network_alone(part):
    model = fanogan().train()
    loss = model.loss(batch(3), part)
    assert loss.shape == (3,)
    loss.mean().backward()
    reached = {name.partition(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {part}
    assert all(p.grad is not None for p in model.get_submodule(part).parameters()), (
        "a weight without gradient"
    )


@pytest.mark.parametrize("part", PARTS)
def test_the_loss_of_an_item_is_its_own(part):
    model, both = fanogan().train(), batch()
    alone = [
        model.loss(
            Batch(both.images[i : i + 1], both.foreground[i : i + 1], None, draw(1, i)), part
        )
        for i in range(2)
    ]
    torch.testing.assert_close(model.loss(both, part), torch.cat(alone))


def test_the_twin_is_the_generators_image_of_the_encoders_code():
    model, x = fanogan().eval(), batch().images
    codes, _ = model.encoder(x)
    assert codes.shape == (2, 4)
    assert torch.equal(model.restore(x, draw(2)).healthy, model.generator(codes))


def test_the_encoders_loss_is_the_image_residual_and_kappa_feature_residuals():
    model, given = fanogan(kappa=3.0).train(), batch()
    x, twin = given.images, model.generator(model.encoder(given.images)[0])
    image, feature = squared(twin, x), squared(model.critic(twin)[1], model.critic(x)[1])
    assert (feature > 0).all()
    torch.testing.assert_close(model.loss(given, "encoder"), image + 3 * feature)


def test_the_papers_score_is_that_loss_and_only_given_when_asked_for():
    plain = fanogan(kappa=3.0).eval()
    paper = fanogan(kappa=3.0, score="paper").eval()
    given = batch()
    assert plain.restore(given.images, draw(2)).score is None
    torch.testing.assert_close(
        paper.restore(given.images, draw(2)).score, paper.train().loss(given, "encoder")
    )
    assert (plain.network_calls(), paper.network_calls()) == (2, 4)


def test_network_calls_of_the_papers_score_are_counted():
    model, calls = fanogan(score="paper").eval(), []
    for part in PARTS:
        model.get_submodule(part).register_forward_hook(
            lambda module, given, output: calls.append(len(given[0]))
        )
    model.restore(batch(3).images, draw(3))
    assert sum(calls) == 3 * model.network_calls()


def test_the_generators_loss_is_the_critics_verdict_on_images_of_its_own_noise():
    model, given = fanogan().train(), batch()
    z = draw(2).fork("generator").noise(torch.empty(2, 4))
    torch.testing.assert_close(
        model.loss(given, "generator"), -model.critic(model.generator(z))[0][:, 0]
    )


def test_without_penalty_the_critics_loss_is_fake_minus_real():
    model, given = fanogan(penalty_weight=0.0).train(), batch()
    z = draw(2).fork("critic").noise(torch.empty(2, 4))
    fake, real = (model.critic(x)[0][:, 0] for x in (model.generator(z), given.images))
    torch.testing.assert_close(model.loss(given, "critic"), fake - real)


def test_validation_looks_at_the_image_residual_and_not_at_the_game():
    model, given = fanogan().eval(), batch()
    twins = model.restore(given.images, draw(2)).healthy
    torch.testing.assert_close(model.loss(given, "encoder"), squared(twins, given.images))
    assert not model.loss(given, "critic").any() and not model.loss(given, "generator").any()


def test_noise_belongs_to_the_item_and_not_to_torchs_generator():
    model, losses = fanogan().train(), []
    for seed in range(2):
        torch.manual_seed(seed)
        losses.append(torch.cat([model.loss(batch(), part) for part in PARTS]))
    assert torch.equal(*losses)


def test_every_part_trains_under_bf16():
    model = fanogan().train()
    for part in PARTS:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(batch(), part)
        loss.mean().backward()
        assert loss.dtype == torch.float32
        gradients = [p.grad for p in model.get_submodule(part).parameters()]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert sum(bool(gradient.any()) for gradient in gradients) > len(gradients) / 2, part
        model.zero_grad(set_to_none=True)


@pytest.mark.parametrize(("size", "channels"), [(8, 2), (16, 3), (32, 4)])
def test_any_power_of_two_and_one_to_four_channels(size, channels):
    model, given = fanogan(size, channels).eval(), batch(2, size, channels)
    twins = model.restore(given.images, draw(2)).healthy
    assert twins.shape == given.images.shape and twins.abs().max() <= 1
    losses = {part: model.train().loss(given, part) for part in PARTS}
    assert all(loss.shape == (2,) and loss.abs().max() > 0 for loss in losses.values())
    assert all(loss.isfinite().all() for loss in losses.values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 12}, "size 12"),
        ({"size": 4}, "size 4"),
        ({"critic": {"width": 12}}, r"critic\.width = 12"),
        ({"latent": 0}, "latent = 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(Fault, match=words):
        fanogan(**settings)


def test_it_is_registered_and_learns_from_healthy_images_alone():
    assert restorer_class("fanogan") is FAnoGAN and not FAnoGAN.uses_labels
