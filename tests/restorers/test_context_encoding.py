"""The context-encoding VAE: its two tasks, the squares it must fill in, and a map that is residual
times gradient."""

from __future__ import annotations

import torch

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.restorers.base import Batch
from pseudohealthy.restorers.context_encoding import ContextEncodingVAE


def cevae(**settings) -> ContextEncodingVAE:
    torch.manual_seed(0)
    return ContextEncodingVAE(
        size=32, channels=2, network={"width": 8, "levels": 2, "latent": 4}, **settings
    )


def batch(count: int = 3) -> Batch:
    x = torch.rand(count, 2, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Batch(x, x[:, 0] > -2, None, Draw(0, range(count)))


def test_squares_are_noise_of_the_stated_number_and_size_and_each_item_has_its_own():
    model, x = cevae(squares=1, side=0.5), torch.full((200, 2, 32, 32), 2.0)
    painted = model.painted(x, Draw(0, range(200)))
    hidden = (painted != x).any(1)
    rows, columns = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert (rows == columns).all(), "one square each"
    assert rows.min() == 4 and rows.max() == 16, "a quarter of half the side, to half the side"
    covered = hidden.float().mean(0)
    assert covered.amax(0).min() > 0 and covered.amax(1).min() > 0, "every row and column"
    assert painted[hidden[:, None].expand_as(x)].abs().max() <= 1
    assert torch.equal(model.painted(x[:1], Draw(0, [7]))[0], painted[7])
    many = (cevae(squares=5, side=0.5).painted(x, Draw(0, range(200))) != x).any(1)
    assert many.float().mean() > 1.5 * hidden.float().mean()


def test_the_loss_is_the_weighted_sum_of_both_tasks():
    model, x = cevae(beta=0.1), batch().images
    draw = batch().draw
    rebuilt, divergence = model.network(x, draw)
    variational = (rebuilt - x).square().mean((1, 2, 3)) + 0.1 * divergence
    filled = model.network(model.painted(x, draw.fork("context")), None)[0]
    context = (filled - x).square().mean((1, 2, 3))
    for share in (0.0, 0.5, 1.0):
        model.context = share
        found = model.loss(batch(), "network")
        torch.testing.assert_close(found, (1 - share) * variational + share * context)


def test_no_prior_pulls_at_the_context_task():
    model = cevae(context=1.0)
    model.loss(batch(), "network").sum().backward()
    mean, log_variance = model.network.code.weight.grad.chunk(2)
    assert mean.abs().max() > 0 and log_variance.abs().max() == 0


def test_the_map_is_the_residual_times_the_gradient_of_the_divergence():
    model, x = cevae(blur=0.0), batch(1).images
    with torch.no_grad():
        found = model.restore(x, Draw(0, [0]))
        healthy = model.network(x, None)[0]
    assert torch.equal(found.healthy, healthy)
    residual = (x - healthy).abs().sum(1)
    for row, column in ((3, 5), (16, 20)):
        moved = torch.zeros(4, 2, 32, 32)  # each channel up and down
        moved[[0, 1, 2, 3], [0, 0, 1, 1], row, column] = torch.tensor([1.0, -1.0, 1.0, -1.0]) * 0.02
        with torch.no_grad():
            divergence = model.network(x + moved, None)[1].view(2, 2)
        gradient = ((divergence[:, 0] - divergence[:, 1]).abs() / 0.04).sum()
        torch.testing.assert_close(
            found.map[0, row, column], residual[0, row, column] * gradient, rtol=0.05, atol=1e-5
        )
    model.blur = 2.0
    with torch.no_grad():
        smoother = model.restore(x, Draw(0, [0])).map / residual
    assert smoother.std() < 0.8 * (found.map / residual).std()


def test_the_plain_residual_is_left_to_the_recipe():
    model, x = cevae(score="residual"), batch().images
    with torch.no_grad():
        found = model.restore(x, Draw(0, range(3)))
    assert found.map is None and model.describe() == "" and "gradient" in cevae().describe()
    torch.testing.assert_close(found.healthy, cevae().restore(x, Draw(0, range(3))).healthy)
