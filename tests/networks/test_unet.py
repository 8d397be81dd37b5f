"""The U-Net and the classifier: published sizes and names, options, and what they refuse."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from pseudohealthy.errors import Fault
from pseudohealthy.networks.blocks import QUERY_ROWS, Attention, Stage, attend, timestep_embedding
from pseudohealthy.networks.classifier import Classifier
from pseudohealthy.networks.unet import UNet
from small import on_gpu

WOLLEB = {"width": 128, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "attention": {"at": (16,)}}
WOLLEB |= {"condition": {"classes": 2}, "learned_variance": True}
PDDPM = {
    "width": 128,
    "multipliers": (1, 2, 2),
    "blocks": 3,
    "attention": {"head_channels": 64, "order": "new"},
}
PDDPM |= {"block": {"scale_shift": True, "residual_sampling": True}}
DDPM = {
    "width": 128,
    "multipliers": (1, 1, 2, 2, 4, 4),
    "blocks": 2,
    "attention": {"at": (16,)},
    "block": {"eps": 1e-6, "pad_end": True},
}
DDPM |= {"time": {"order": "sin-cos", "frequency_shift": 1}}
CLASSIFIER = {
    "size": 256,
    "width": 32,
    "multipliers": (1, 1, 2, 2, 4, 4),
    "blocks": 4,
    "attention": {"at": (8, 16, 32), "head_channels": 64},
}
SMALL = {"width": 16, "multipliers": (1, 2), "blocks": 1, "attention": {"at": (2,)}}


def on_meta(network, **settings):
    """Built without memory or initial values, so that counting the largest is free."""
    with torch.device("meta"):
        return network(**settings)


@pytest.mark.parametrize(
    ("network", "settings", "count"),
    [
        (UNet, {"channels": 4, **WOLLEB}, 113_681_160),
        (UNet, WOLLEB, 113_670_786),
        (Classifier, {"in_channels": 4, **CLASSIFIER}, 5_452_962),
        (Classifier, CLASSIFIER, 5_452_098),
        (UNet, PDDPM, 37_513_857),
        (UNet, {**PDDPM, "condition": {"vector": 512}}, 44_068_481),
        (UNet, {**PDDPM, "block": {"residual_sampling": True}}, 34_493_313),
        (UNet, {"channels": 3, **DDPM}, 113_673_219),
    ],
    ids=[
        "wolleb",
        "wolleb-1ch",
        "classifier",
        "classifier-1ch",
        "pddpm",
        "cddpm",
        "pddpm-baseline",
        "ddpm-celebahq",
    ],
)
def test_published_parameter_counts(network, settings, count):
    assert sum(p.numel() for p in on_meta(network, **settings).parameters()) == count


@pytest.mark.parametrize(
    ("network", "settings", "file"),
    [
        (UNet, WOLLEB | {"channels": 4}, "wolleb_unet_keys"),
        (Classifier, CLASSIFIER | {"in_channels": 4}, "wolleb_classifier_keys"),
    ],
)
def test_published_parameter_names_and_shapes(network, settings, file, shared: Path):
    lines = (shared / "reference" / f"{file}.txt").read_text().splitlines()
    published = dict(line.split(" ", 1) for line in lines)
    own = {k: str(tuple(v.shape)) for k, v in on_meta(network, **settings).state_dict().items()}
    assert own == published


def trained(network):
    """Zero-initialised layers filled, so that every path shows in the output."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.abs().sum() == 0:
            parameter.data.normal_(std=0.1, generator=generator)
    return network.eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stem": 2},
        {
            "block": {"scale_shift": True, "residual_sampling": True},
            "attention": {"at": (2,), "head_channels": 8},
        },
        {"attention": {"at": (2,), "order": "new", "heads": 2, "middle": False}},
        {"time": {"order": "sin-cos"}, "learned_variance": True, "stem": 2},
        {
            "time": {"order": "sin-cos", "frequency_shift": 1},
            "block": {"pad_end": True, "eps": 1e-6},
        },
    ],
)
def test_output_has_the_image_s_shape_and_items_do_not_mix(options):
    network = trained(UNet(channels=2, **SMALL | options))
    x, t = torch.randn(3, 2, 16, 24), torch.tensor([0, 10, 999])
    with torch.no_grad():
        out = network(x, t)
        alone = network(x[1:2], 10)
    assert (
        out.shape == (3, 4 if options.get("learned_variance") else 2, 16, 24)
        and out.is_contiguous()
    )
    assert torch.allclose(out[1:2], alone, atol=1e-5)


def test_a_fresh_network_puts_out_zero_and_trains_everywhere():
    network = UNet(condition={"classes": 2}, block={"dropout": 0.1}, **SMALL)
    x = torch.randn(2, 1, 16, 16)
    assert network(x, 5, label=0).abs().max() == 0
    loss = (
        trained(network)
        .train()(x, torch.tensor([3, 900]), label=torch.tensor([0, 1]))
        .square()
        .mean()
    )
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_the_condition_matters_and_must_be_given_exactly_where_there_is_one():
    x = torch.randn(2, 1, 16, 16)
    labelled, conditioned = (
        trained(UNet(**SMALL, condition={"classes": 2})),
        trained(UNet(**SMALL, condition={"vector": 5})),
    )
    assert not torch.allclose(labelled(x, 1, label=0), labelled(x, 1, label=1))
    assert torch.allclose(labelled(x, 1, label=1), labelled(x, 1, label=torch.tensor([1, 1])))
    assert not torch.allclose(
        conditioned(x, 1, vector=torch.zeros(2, 5)), conditioned(x, 1, vector=torch.ones(2, 5))
    )
    for network, condition in (
        (labelled, {}),
        (conditioned, {}),
        (conditioned, {"label": 0}),
        (UNet(**SMALL), {"label": 0}),
    ):
        with pytest.raises(ValueError, match="condition"):
            network(x, 1, **condition)


@pytest.mark.parametrize(
    "options",
    [
        {"stem": 2},
        {"block": {"scale_shift": True, "residual_sampling": True}},
        {"block": {"pad_end": True}},
    ],
)
def test_bfloat16_autocast_stays_close(options):
    network = trained(UNet(**SMALL | options))
    x = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        full = network(x, 300)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x, 300)
    assert (half.float() - full).abs().max() < 0.05 * full.abs().max()


@pytest.mark.parametrize("order", ["legacy", "new"])
def test_chunked_attention_is_plain_attention(order):
    heads, channels, length = 2, 4, QUERY_ROWS + 100
    qkv = torch.randn(2, 3 * heads * channels, length)
    axes = (2, heads, 3, channels, length) if order == "legacy" else (2, 3, heads, channels, length)
    q, k, v = qkv.reshape(axes).unbind(2 if order == "legacy" else 1)
    weights = torch.einsum("bhcq,bhck->bhqk", q, k).div(channels**0.5).softmax(-1)
    plain = torch.einsum("bhqk,bhck->bhcq", weights, v).reshape(2, -1, length)
    assert torch.allclose(attend(qkv, heads, order), plain, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"block": {"residual_sampling": True}}, {"block": {"pad_end": True}}]
)
def test_both_memory_layouts_agree(options):
    network = trained(UNet(**SMALL | options))
    x = torch.randn(2, 1, 16, 16)
    contiguous = network(x, 7).detach()
    with torch.no_grad():
        assert torch.allclose(
            network.to(memory_format=torch.channels_last)(x, 7), contiguous, atol=1e-5
        )


def test_the_slowest_wave_of_ddpm_s_time_embedding_is_a_ten_thousandth():
    for shift, slowest in ((0, 10000 ** (-3 / 4)), (1, 1e-4)):
        sine = timestep_embedding(torch.tensor([1000]), 8, "sin-cos", shift)[0, 3]
        assert float(sine) == pytest.approx(math.sin(1000 * slowest), abs=1e-6)


@pytest.mark.parametrize("size", [16, (16, 24)])
def test_the_classifier_is_built_for_one_image_size(size):
    network = Classifier(
        in_channels=2,
        size=size,
        classes=3,
        width=16,
        multipliers=(1, 2),
        blocks=1,
        attention={"at": (2,)},
    )
    x = torch.randn(2, 2, *((size, size) if isinstance(size, int) else size))
    assert network(x, torch.tensor([1, 999])).shape == (2, 3)
    with pytest.raises(ValueError, match="built for"):
        network(torch.randn(1, 2, 32, 32), 1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UNet(**SMALL, condition={"classes": 2, "vector": 3}), "not on both"),
        (lambda: UNet(**SMALL | {"attention": {"head_channels": 5}}), "head_channels = 5"),
        (lambda: UNet(time={"frequency_shift": 2}, **SMALL), "give 0 or 1"),
        (lambda: UNet(**SMALL | {"block": {"groups": 7}}), "groups = 7"),
        (lambda: UNet(**SMALL | {"width": 7}), "an even number"),
        (
            lambda: UNet(block={"pad_end": True, "residual_sampling": True}, **SMALL),
            "not of residual_sampling",
        ),
        (lambda: Classifier(size=30, width=16, multipliers=(1, 2, 2)), "sides that 4 divides"),
        (lambda: UNet(**SMALL, stem=2)(torch.zeros(1, 1, 16, 18), 1), "sides that 4 divides"),
    ],
)
def test_impossible_settings_are_refused(build, message):
    with pytest.raises((ValueError, Fault), match=message):
        build()


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"block": {"scale_shift": True, "residual_sampling": True}},
        {"attention": {"at": (2,), "order": "new", "heads": 2}},
        {"stem": 2},
    ],
)
def test_inference_gives_what_training_computes_and_half_precision_stays_channels_last(
    options, channels
):
    network = trained(UNet(channels=channels, **{**SMALL, **options}))
    x, t = torch.randn(2, channels, 16, 16), torch.tensor([3, 900])
    plain, given, layouts = network(x, t), x.clone(), []
    with torch.no_grad():
        torch.testing.assert_close(network(x, t), plain, atol=2e-5, rtol=1e-4)
    assert torch.equal(x, given), "no work is done in place on the input"
    for module in network.modules():
        if isinstance(module, Stage | Attention):
            module.register_forward_hook(
                lambda module, x, out: layouts.append(
                    out.is_contiguous(memory_format=torch.channels_last)
                )
            )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = network(x, t)
    assert (half - plain).abs().mean() < 0.04 * plain.abs().mean()
    assert len(layouts) > 6 and all(layouts)


def test_checkpointing_gives_the_same_gradients_and_keeps_less():
    settings = {
        "width": 16,
        "multipliers": (1, 2),
        "blocks": 2,
        "attention": {"at": (2,)},
        "block": {"dropout": 0.1},
    }
    plain = UNet(**settings)
    lean = UNet(**settings | {"block": {"dropout": 0.1, "checkpointing": True}})
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.05) if not parameter.any() else None
    lean.load_state_dict(plain.state_dict())
    x, kept = torch.randn(2, 1, 32, 32), {}
    for name, network in (("plain", plain), ("lean", lean)):
        stored: dict[int, int] = {}

        def keep(tensor: torch.Tensor, stored=stored) -> torch.Tensor:
            stored[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        torch.manual_seed(0)  # of the dropout
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = network(x, torch.tensor([3, 900])).square().mean()
        kept[name] = sum(stored.values())
        loss.backward()
    for (name, one), other in zip(plain.named_parameters(), lean.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-7), name
    assert kept["lean"] < 0.5 * kept["plain"]


@pytest.mark.gpu
@pytest.mark.parametrize("order", ["legacy", "new"])
def test_the_attention_of_cuda_is_that_of_the_cpu(order):
    qkv = torch.randn(2, 3 * 24, 50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        attend(on_gpu(qkv), 4, order).cpu().as_subclass(torch.Tensor), attend(qkv, 4, order)
    )
