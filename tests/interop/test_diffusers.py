"""A diffusers UNet2DModel becomes a run that answers as it did."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from diffusers_folder import LINEAR, refused, vector, written

from pseudohealthy.__main__ import main
from pseudohealthy.detection.detector import load
from pseudohealthy.errors import USAGE
from pseudohealthy.interop import diffusers
from pseudohealthy.interop.weights import import_weights
from pseudohealthy.networks.unet import UNet
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.runs.run import Run
from small import merged

CELEBAHQ = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.1.1",
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "center_input_sample": False,
    "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 256,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
}


# -- the same answers ------------------------------------------------------------------------------
@pytest.mark.parametrize("case", ["ddpm", "default"])
def test_a_run_answers_as_diffusers_did(case, tmp_path):
    config, weights, x, t, out = vector(case)
    run = import_weights(
        "diffusers", written(tmp_path / "model", config, weights, LINEAR), tmp_path / "run"
    )
    network = run.restorer()[0].denoiser.network
    with torch.no_grad():
        torch.testing.assert_close(network(x, t), out, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            network.to(memory_format=torch.channels_last)(x, t), out, rtol=1e-5, atol=1e-5
        )
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x, t)
    assert (half.float() - out).abs().max() < 0.05 * out.abs().max()
    assert (run.recipe.canvas["size"], run.recipe.canvas["channels"]) == (16, x.shape[1])
    assert run.record["parameters"] == sum(value.numel() for value in weights.values())
    assert run.record["check"]["data_range"] in ("signed", "unit", "undecided")


@pytest.mark.parametrize(
    "option",
    ["block.pad_end", "time.frequency_shift", "time.order", "block.eps", "attention.head_channels"],
)
def test_every_option_shows_in_the_answer(option):
    """So that the test above would see it lost."""
    config, weights, x, t, out = vector(
        "default" if "heads" in option or "head_" in option else "ddpm"
    )
    settings = diffusers.unet_settings(config)
    neutral = {
        "block": {"pad_end": False, "eps": 1e-2},
        "time": {"frequency_shift": 0, "order": "cos-sin"},
        "attention": {"head_channels": None},
    }
    table, key = option.split(".")
    network = UNet(**merged(settings, {table: {key: neutral[table][key]}})).eval()
    network.load_state_dict(diffusers.convert(weights, settings))
    with torch.no_grad():
        assert (network(x, t) - out).abs().max() > 1e-3


def test_the_attention_s_former_names_pickled_files_and_bare_models_give_the_same_weights(tmp_path):
    config, weights, *_ = vector("ddpm")
    names = {new: old for old, new in diffusers.FORMER.items()}
    former = {}
    for key, value in weights.items():
        for new, old in names.items():
            key = key.replace(f".{new}.", f".{old}.")
        former[key] = value
    assert any(".proj_attn." in key for key in former)
    now = diffusers.read_folder(written(tmp_path / "now", config, weights))
    then = diffusers.read_folder(
        written(tmp_path / "then", config, former, pipeline=False, pickle=True)
    )
    a, b = (imported.parts["denoiser.network"] for imported in (now, then))
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_celebahq_network_has_its_published_size_and_is_the_recipe_s():
    settings = diffusers.unet_settings(CELEBAHQ)
    recipe = Recipe.load("celebahq-256")
    with torch.device("meta"):
        network, ours = UNet(**settings), recipe.make_restorer().denoiser.network
    assert sum(p.numel() for p in network.parameters()) == 113_673_219
    assert {k: v.shape for k, v in network.state_dict().items()} == {
        k: v.shape for k, v in ours.state_dict().items()
    }
    theirs, ours = merged({}, settings), recipe.restorer["network"]
    assert ours["time"] == theirs["time"] and ours["block"].items() <= theirs["block"].items()
    assert {*ours["block"]} == {"eps", "pad_end"}


@pytest.mark.services
def test_against_diffusers_itself(tmp_path):
    theirs = pytest.importorskip(
        "diffusers", reason="not installed: diffusers (pip install diffusers)"
    )
    torch.manual_seed(0)
    model = theirs.UNet2DModel(
        sample_size=16,
        in_channels=2,
        out_channels=2,
        norm_num_groups=8,
        block_out_channels=(16, 32, 48),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        downsample_padding=0,
        freq_shift=1,
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        resnet_time_scale_shift="scale_shift",
        attn_norm_num_groups=8,
    ).eval()
    scheduler = theirs.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False
    )
    theirs.DDPMPipeline(unet=model, scheduler=scheduler).save_pretrained(tmp_path / "model")
    denoiser = (
        import_weights("diffusers", tmp_path / "model", tmp_path / "run").restorer()[0].denoiser
    )
    x, t = torch.randn(2, 2, 16, 24), torch.tensor([7, 999])
    with torch.no_grad():
        torch.testing.assert_close(denoiser.network(x, t), model(x, t).sample, rtol=1e-5, atol=1e-5)
        clean = scheduler.step(model(x, 700).sample, 700, x).pred_original_sample
        torch.testing.assert_close(denoiser(x, 701).clean, clean, rtol=1e-4, atol=1e-4)


# -- the pipeline's scheduler ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "settings"),
    [
        (
            {},
            {
                "schedule": "linear",
                "levels": 1000,
                "betas": [1e-4, 0.02],
                "target": "noise",
                "clip": True,
                "variance": "posterior",
            },
        ),
        (
            {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 400},
            {"schedule": "cosine", "levels": 400},
        ),
        (
            {"beta_start": 2e-4, "beta_end": 0.04, "num_train_timesteps": 500},
            {"schedule": "linear", "levels": 500, "betas": [1e-4, 0.02]},
        ),
        ({"num_train_timesteps": 500}, {"levels": 500, "betas": [5e-5, 0.01]}),
        ({"beta_start": 1e-3, "beta_end": 0.01}, {"schedule": "linear", "betas": [1e-3, 0.01]}),
        (
            {"prediction_type": "v_prediction", "clip_sample": False},
            {"target": "velocity", "clip": False},
        ),
        (
            {"prediction_type": "sample", "variance_type": "fixed_large"},
            {"target": "clean", "variance": "large"},
        ),
        ({"predict_epsilon": False}, {"target": "clean"}),  # before there was prediction_type
    ],
)
def test_the_scheduler_s_configuration_is_the_restorer_s(change, settings, tmp_path):
    config, weights, *_ = vector("ddpm")
    folder = written(tmp_path / "model", config, weights, LINEAR | change)
    for path in (folder, folder / "unet"):
        imported = diffusers.read_folder(path)
        assert (
            settings.items() <= (imported.restorer["diffusion"] | imported.restorer["walk"]).items()
            and not imported.notes
        )


def test_without_a_scheduler_the_run_says_what_was_assumed(tmp_path):
    config, weights, *_ = vector("ddpm")
    folder = written(tmp_path / "model", config | {"sample_size": None}, weights, pipeline=False)
    run = import_weights("diffusers", folder, tmp_path / "run", settings=["canvas.size=32"])
    assert (
        run.recipe.restorer["diffusion"]["schedule"] == "linear" and run.recipe.canvas["size"] == 32
    )
    assert any("no scheduler_config.json" in note for note in run.record["notes"])
    assert any("canvas.size" in note for note in run.record["notes"])


# -- the hub ---------------------------------------------------------------------------------------
def test_an_id_needs_the_hub_s_package_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = refused("HUB", "google/ddpm-ema-celebahq-256", tmp_path / "run", exit=USAGE)
    assert "pseudohealthy[hub]" in message


@pytest.mark.parametrize("pickle", [False, True])
def test_an_id_is_fetched_without_what_is_not_needed(pickle, monkeypatch, tmp_path):
    config, weights, *_ = vector("ddpm")
    folder, asked = written(tmp_path / "cache", config, weights, LINEAR, pickle=pickle), []

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(folder)

    fake = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)  # type: ignore[arg-type]
    run = import_weights("diffusers", "someone/model", tmp_path / "run")
    assert len(asked) == 1 + pickle and asked[-1][0] == "someone/model"
    assert ("unet/diffusion_pytorch_model.bin" in asked[-1][1]) == pickle
    assert run.record["imported"]["denoiser.network"]["file"] == "model"


def test_a_failing_hub_is_one_line(monkeypatch, tmp_path):
    def snapshot_download(name, allow_patterns):
        raise ConnectionError("many\nlines")

    fake = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)  # type: ignore[arg-type]
    assert "ConnectionError" in refused("HUB", "someone/model", tmp_path / "run")


# -- the command and what it makes -----------------------------------------------------------------
def test_the_command_makes_a_run_that_detects(tmp_path):
    config, weights, *_ = vector("ddpm")
    folder = written(tmp_path / "model", config, weights, LINEAR)
    out = tmp_path / "run"
    assert (
        main(
            [
                "import-weights",
                "diffusers",
                str(folder),
                "--out",
                str(out),
                "--set",
                "restorer.walk.start_levels=[3]",
            ]
        )
        == 0
    )
    assert Run.open(out).record["status"] == "imported"
    finding = load(out, threshold=0.5)(
        np.random.default_rng(0).random((3, 1, 20, 20), dtype=np.float32)
    )
    assert (
        finding.healthy.shape == (3, 1, 20, 20)
        and finding.map.shape == (1, 20, 20)
        and finding.map.max() > 0
    )
