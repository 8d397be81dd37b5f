"""Masked pretraining: hidden cells stay hidden, only they are judged, and restoring paints every
cell from the others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import Fault
from pseudohealthy.networks.spark import (
    Spark,
    SparseBatchNorm2d,
    SparseConv2d,
    Visible,
    cell_errors,
)
from pseudohealthy.restorers.base import Batch
from pseudohealthy.restorers.spark import MaskedPretraining

ENCODER = {"layers": (1, 1), "width": 8, "outputs": 8}  # cells of 8 px


def restorer(size: int = 32, **settings) -> MaskedPretraining:
    torch.manual_seed(0)
    made = MaskedPretraining(
        size=size, channels=1, **{"encoder": ENCODER, "decoder_width": 32, **settings}
    )
    for parameter in made.parameters():
        if parameter.abs().max() == 0:
            nn.init.normal_(parameter, std=0.2)
    return made.eval()


def images(count: int = 2, size: int = 32) -> Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_published_size():
    with torch.device("meta"):
        published = MaskedPretraining(size=96, channels=1)
    assert sum(p.numel() for p in published.parameters()) == 39_013_393
    assert (published.cells, published.seen) == (9, 3)


@torch.no_grad()
def test_what_is_hidden_does_not_leak():
    model = restorer().model
    x, cells = images(), torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(2)) > 0.5
    hidden = ~cells.repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert torch.equal(model(x, cells), model(torch.where(hidden, 100.0, x), cells))
    assert not torch.equal(model(x, cells), model(torch.where(hidden, x, x + 0.1), cells))
    model.visible.cells = cells
    for part in model.sparse_encoder.sp_cnn(x * model.visible.like(x)):
        assert not part[~model.visible.like(part).expand_as(part)].any()


def test_sparse_normalisation_counts_visible_places_only():
    visible = Visible()
    norm = SparseBatchNorm2d(visible, 3).train()
    visible.cells = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0)) > 0.4
    x = torch.randn(4, 3, 8, 8) * 2 + 5
    out = norm(x)
    seen = visible.like(x)[:, 0]
    values = x.permute(0, 2, 3, 1)[seen]
    expected = (values - values.mean(0)) / (values.var(0, unbiased=False) + norm.eps).sqrt()
    torch.testing.assert_close(out.permute(0, 2, 3, 1)[seen], expected, atol=1e-5, rtol=1e-5)
    assert not out.permute(0, 2, 3, 1)[~seen].any()
    torch.testing.assert_close(norm.running_mean, 0.1 * values.mean(0))


def test_with_everything_visible_sparse_layers_are_the_dense_ones():
    visible = Visible()
    visible.cells = torch.ones(2, 1, 2, 2, dtype=torch.bool)
    x = torch.randn(2, 3, 8, 8)
    conv, norm = SparseConv2d(visible, 3, 4, 3, padding=1), SparseBatchNorm2d(visible, 3).train()
    torch.testing.assert_close(conv(x), nn.functional.conv2d(x, conv.weight, conv.bias, padding=1))
    torch.testing.assert_close(norm(x), nn.BatchNorm2d(3).train()(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_loss_is_the_error_of_hidden_cells():
    model, x = restorer(), images(3)
    shown = []

    class Painter(nn.Module):
        factor = 8

        def forward(self, image: Tensor, cells: Tensor) -> Tensor:
            shown.append(cells)
            grown = cells.repeat_interleave(8, 2).repeat_interleave(8, 3)
            return image + torch.where(grown, 9.0, 0.5)  # badly wrong only where it does not count

    model.model = Painter()  # type: ignore[assignment]
    losses = model.loss(Batch(x, x[:, 0] > -1, None, Draw(0, [1, 2, 3])), "model")
    torch.testing.assert_close(losses, torch.full((3,), 0.25))
    assert shown[0].flatten(1).sum(1).tolist() == [model.seen] * 3 and model.seen == 6  # 35 % of 16
    assert not torch.equal(shown[0][0], shown[0][1])


def test_cell_errors_are_means_over_pixels_and_channels():
    x = torch.zeros(1, 2, 4, 4)
    painted = x.clone()
    painted[0, 0, :2, 2:] = 2.0
    assert cell_errors(painted, x, 2).tolist() == [[[[0, 2], [0, 0]]]]


@pytest.mark.parametrize("hidden", [0.05, 0.3, 0.5, 0.65, 0.9])
@pytest.mark.parametrize("size", [16, 24, 32])
def test_the_maskings_together_hide_every_cell(size, hidden):
    model = restorer(size, hidden=hidden)
    order = model.order(Draw(0, list(range(8))), images(8, size))
    times = sum(~model.visible(order, first) for first in model.maskings())
    assert isinstance(times, Tensor) and (times > 0).all()
    assert model.network_calls() == len(model.maskings()) <= model.cells


@torch.no_grad()
def test_a_cell_is_painted_without_having_been_seen():
    model, x = restorer(), images(1)
    other = x.clone()
    other[..., 8:16, 16:24] = 1.0
    first, second = (model.restore(image, Draw(0, ["case"])).healthy for image in (x, other))
    assert torch.equal(first[..., 8:16, 16:24], second[..., 8:16, 16:24])
    assert not torch.equal(first, second)


def test_everything_but_the_unused_last_layer_is_trained():
    model = restorer().train()
    model.loss(
        Batch(images(4), images(4)[:, 0] > -1, None, Draw(0, [1, 2, 3, 4])), "model"
    ).mean().backward()
    without = {name for name, p in model.model.named_parameters() if p.grad is None}
    assert without == {"sparse_encoder.sp_cnn.fc.weight", "sparse_encoder.sp_cnn.fc.bias"}
    assert not any(p.requires_grad for p in model.model.sparse_encoder.sp_cnn.fc.parameters())


@pytest.mark.parametrize(
    "wrong", [{"size": 20}, {"size": 8}, {"hidden": 1.0}, {"hidden": 0.0}, {"decoder_width": 12}]
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises((ValueError, Fault)):
        restorer(**wrong)


def test_names_are_those_of_the_published_checkpoints():
    names = set(Spark(encoder=ENCODER, width=32).state_dict())
    heads = {name.split(".")[0] for name in names}
    assert heads == {"sparse_encoder", "dense_decoder", "mask_tokens", "en_de_norms", "en_de_lins"}
    assert "sparse_encoder.sp_cnn.layer1.0.downsample.0.weight" in names
