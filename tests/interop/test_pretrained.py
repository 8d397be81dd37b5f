"""A training starts from the network of a run or of a diffusers folder, with other channels where
they differ."""

from __future__ import annotations

import pytest
import torch
from diffusers_folder import LINEAR, vector, written
from torch import nn

from pseudohealthy.errors import BAD_MODEL, Fault
from pseudohealthy.interop.pretrained import start_from
from pseudohealthy.interop.weights import import_weights
from pseudohealthy.networks.unet import UNet
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.runs.run import Run
from small import merged

pytestmark = pytest.mark.usefixtures("unpainted")

DDPM = {
    "width": 8,
    "multipliers": [1, 1, 2],
    "blocks": 1,
    "attention": {"at": [2]},
    "block": {"groups": 4, "eps": 1e-6, "pad_end": True},
    "time": {"order": "sin-cos", "frequency_shift": 1},
}
SMALL = {"width": 8, "multipliers": (1, 2), "blocks": 1, "block": {"groups": 4}}


@pytest.fixture
def folder(tmp_path):
    config, weights, *_ = vector("ddpm")
    return written(tmp_path / "model", config, weights, LINEAR)


def saved_run(folder, restorer, channels=1, **canvas):
    """A run with weights everywhere."""
    run = Run.create(
        folder, Recipe("r", canvas={"size": 16, "channels": channels, **canvas}, restorer=restorer)
    )
    module = run.recipe.make_restorer()
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    checkpoint.save(run.folder / "best_model.safetensors", module.state_dict(), {})
    return run.folder, module


def refused(module, path, code="CHECKPOINT_MISMATCH"):
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(Fault, match=code) as caught:
        start_from(module, path)
    assert caught.value.exit == BAD_MODEL and "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    return str(caught.value)


def test_a_folder_its_run_and_its_weights_file_give_the_published_answer(folder, tmp_path):
    _, _, x, t, out = vector("ddpm")
    run = import_weights("diffusers", folder, tmp_path / "run").folder
    for path in (folder, folder / "unet", run, run / "best_model.safetensors", str(run)):
        network = UNet(channels=3, **DDPM)
        start_from(network, path)
        with torch.no_grad():
            torch.testing.assert_close(network.eval()(x, t), out, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [(3, 1), (1, 3), (3, 2), (2, 5)])
@pytest.mark.parametrize("options", [{}, {"stem": 2}])
def test_with_other_channels_a_grey_image_gets_the_same_answer(old, new, options, tmp_path):
    """Averaged over the channels: exact to fewer that divide, and to one."""
    path, restorer = saved_run(
        tmp_path / "run", {"name": "ddpm", "network": SMALL | options}, channels=old
    )
    network = UNet(channels=new, **SMALL, **options)
    start_from(network, path)
    grey = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        before = restorer.denoiser.network(grey.expand(-1, old, -1, -1), 7)
        after = network(grey.expand(-1, new, -1, -1), 7)
    if new == 1:
        before = before.mean(1, keepdim=True)
    elif new > old:
        before = before[:, [channel % old for channel in range(new)]]
    else:
        before = torch.stack([before[:, channel::new].mean(1) for channel in range(new)], 1)
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


def test_learned_variances_are_adapted_apart_from_the_estimate(tmp_path):
    restorer = {
        "name": "guided",
        "network": SMALL,
        "classifier": {
            "width": 8,
            "multipliers": [1, 2],
            "blocks": 1,
            "attention": {"at": [2], "head_channels": 8},
        },
    }
    path, module = saved_run(
        tmp_path / "run", restorer | {"guidance": {"conditional": False}}, channels=2
    )
    network = UNet(learned_variance=True, **SMALL)
    start_from(network, path)
    old = module.denoiser.network.out[2].bias
    torch.testing.assert_close(network.out[2].bias, old.unflatten(0, (2, 2)).mean(1))
    assert "learned_variance" in refused(UNet(**SMALL), path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("block.eps", 1e-5),
        ("time.frequency_shift", 0),
        ("block.pad_end", False),
        ("time.order", "cos-sin"),
        ("attention.heads", 2),
    ],
)
def test_the_same_weights_with_another_setting_are_refused_by_name(name, value, folder):
    table, key = name.split(".")
    network = UNet(channels=3, **merged(DDPM, {table: {key: value}}))
    assert f"of 'model' has {'heads' if key == 'heads' else name}" in refused(network, folder)


def test_the_order_of_one_head_is_no_difference(folder):
    for order in ("legacy", "new"):
        start_from(UNet(channels=3, **merged(DDPM, {"attention": {"order": order}})), folder)


def test_no_path_is_no_start():
    network = UNet(**DDPM)
    before = network.input_blocks[0][0].weight.clone()
    start_from(network, "")
    assert torch.equal(network.input_blocks[0][0].weight, before)


def test_other_shapes_are_refused_in_one_line(folder, tmp_path):
    assert "wanted" in refused(UNet(channels=3, **DDPM | {"width": 16}), folder)
    assert "missing label_emb" in refused(
        UNet(channels=3, condition={"classes": 2}, **DDPM), folder
    )
    assert "stem" in refused(UNet(channels=3, stem=2, **DDPM), folder)
    assert "neither a run nor" in refused(UNet(**DDPM), tmp_path / "nothing", "RUN_MISSING")
    assert "neither a run nor" in refused(
        UNet(**DDPM), "google/ddpm-ema-celebahq-256", "RUN_MISSING"
    )
    path, _ = saved_run(tmp_path / "other", {"name": "autoencoder"})
    assert "has no UNet" in refused(UNet(**DDPM), path)
