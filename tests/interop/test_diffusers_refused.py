"""Options of a diffusers model that we have not are refused by name, and so are incomplete
folders."""

from __future__ import annotations

import pytest
import torch
from diffusers_folder import LINEAR, refused, vector, written
from safetensors.torch import save_file

from pseudohealthy.errors import Fault
from pseudohealthy.interop.weights import import_weights


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel"),
        (
            {"down_block_types": ["DownBlock2D", "SkipDownBlock2D", "DownBlock2D"]},
            "SkipDownBlock2D",
        ),
        ({"up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D"]}, "up_block_types"),
        ({"num_class_embeds": 10}, "num_class_embeds = 10"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"time_embedding_type": "fourier"}, "fourier"),
        ({"resnet_time_scale_shift": "spatial"}, "spatial"),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups"),
        ({"block_out_channels": [8, 12, 16]}, "block_out_channels"),
        ({"out_channels": 6}, "3 channels in and 6 out"),
        ({"act_fn": "gelu"}, "act_fn"),
        ({"attention_head_dim": 5}, "attention_head_dim = 5"),
        ({"sample_size": [16, 32]}, "not square"),
        ({"block_out_channels": None}, "cannot be imported"),
    ],
)
def test_an_option_that_we_have_not_is_refused_by_name(change, said, tmp_path):
    config, weights, *_ = vector("ddpm")
    message = refused(
        "CHECKPOINT_MISMATCH", written(tmp_path / "m", config | change, weights), tmp_path / "run"
    )
    assert said in message


@pytest.mark.parametrize(
    "change",
    [
        {"beta_schedule": "scaled_linear"},
        {"beta_end": 1.5},
        {"trained_betas": [0.1]},
        {"variance_type": "learned"},
        {"rescale_betas_zero_snr": True},
        {"prediction_type": "flow_prediction"},
        {"beta_schedule": None},
    ],
)
def test_a_noise_schedule_that_we_have_not_is_refused(change, tmp_path):
    config, weights, *_ = vector("ddpm")
    message = refused(
        "CHECKPOINT_MISMATCH",
        written(tmp_path / "m", config, weights, LINEAR | change),
        tmp_path / "run",
    )
    assert "schedule" in message or "prediction_type" in message


@pytest.mark.parametrize(
    "change",
    [
        "no folder",
        "no config",
        "no weights",
        "a damaged config",
        "half of a layer",
        "a latent model",
        "another layer",
        "other shapes",
    ],
)
def test_incomplete_folders_are_refused(change, tmp_path):
    config, weights, *_ = vector("ddpm")
    folder, code = tmp_path / "m", "CHECKPOINT_MISMATCH"
    if change == "half of a layer":
        del weights["mid_block.attentions.0.to_k.weight"]
    elif change == "another layer":
        weights["extra.weight"] = torch.zeros(1)
    elif change == "other shapes":
        weights["conv_in.weight"] = torch.zeros(8, 4, 3, 3)
    if change != "no folder":
        written(folder, config, weights)
    if change == "no config":
        (folder / "unet" / "config.json").unlink()
    elif change == "no weights":
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    elif change == "a damaged config":
        (folder / "unet" / "config.json").write_text("{")
        code = "CHECKPOINT_CORRUPT"
    elif change == "a latent model":
        (folder / "model_index.json").write_text(
            '{"unet": ["diffusers", "UNet2DModel"], "vqvae": ["diffusers", "VQModel"]}'
        )
    refused("CHECKPOINT_MISSING" if change.startswith("no ") else code, folder, tmp_path / "run")


def test_a_lone_weights_file_is_recognised_but_needs_its_folder(tmp_path):
    _, weights, *_ = vector("ddpm")
    save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(Fault, match="of diffusers, not of thor"):
        import_weights("thor", tmp_path / "weights.safetensors", tmp_path / "run")
    assert "no config.json" in refused(
        "CHECKPOINT_MISSING", tmp_path / "weights.safetensors", tmp_path / "run"
    )
