"""Published checkpoints become runs that restore as the network did; everything else is refused and
leaves nothing."""

from __future__ import annotations

import collections
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pseudohealthy.__main__ import main
from pseudohealthy.detection.detector import load
from pseudohealthy.diffusion.schedule import Schedule
from pseudohealthy.errors import BAD_MODEL, Fault
from pseudohealthy.interop import adm
from pseudohealthy.interop.weights import import_weights
from pseudohealthy.networks.classifier import Classifier
from pseudohealthy.networks.resnet import ResNet
from pseudohealthy.networks.unet import UNet
from pseudohealthy.runs.run import Run
from small import filled, merged

pytestmark = pytest.mark.usefixtures("unpainted")

SMALL = ["canvas.size=32", "restorer.walk.start_levels=4"]


@pytest.fixture(scope="module")
def unet():
    shape = {"channels": 2, "learned_variance": True, "condition": {"classes": 2}}
    return filled(UNet(width=32, multipliers=(1, 1, 2), blocks=1, attention={"at": (4,)}, **shape))


@pytest.fixture(scope="module")
def classifier():
    shape = {
        "width": 32,
        "multipliers": (1, 1, 2),
        "blocks": 2,
        "attention": {"at": (2, 4), "head_channels": 32},
    }
    return filled(Classifier(in_channels=2, size=32, **shape))


@pytest.fixture
def saved(tmp_path):
    def save(content, name="weights.pt"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def refused(code, system, file, out):
    with pytest.raises(Fault, match=code) as caught:
        import_weights(system, file, out, settings=SMALL)
    assert caught.value.exit == BAD_MODEL and not out.exists()
    return str(caught.value)


# -- Wolleb: two files, one run --------------------------------------------------------------------
def test_both_orders_of_wolleb_s_files_give_the_same_run(unet, classifier, saved, tmp_path):
    files = {
        "wolleb": saved(unet.state_dict(), "u.pt"),
        "wolleb-classifier": saved(classifier.state_dict(), "c.pt"),
    }
    runs = []
    for name, order in {"a": sorted(files), "b": sorted(files, reverse=True)}.items():
        for system in order:
            # Its classifier will know better.
            guess = ["canvas.size=64"] if system == order[0] == "wolleb" else []
            run = import_weights(
                system,
                files[system],
                tmp_path / name,
                settings=["restorer.walk.start_levels=4", *guess],
            )
        runs.append(run)
    assert (
        runs[0].recipe.restorer == runs[1].recipe.restorer
        and runs[0].recipe.canvas == runs[1].recipe.canvas
    )
    assert (
        runs[0].recipe.canvas["size"] == 32 and runs[0].recipe.restorer["guidance"]["scale"] == 100
    )
    x, t = torch.rand(1, 2, 32, 32), torch.tensor([7])
    for run in runs:
        restorer, _ = Run.open(run.folder).restorer()
        assert torch.equal(restorer.denoiser.network(x, t, label=0), unet(x, t, label=0))
        assert torch.equal(restorer.classifier(x, t), classifier(x, t))
        assert sorted(path.name for path in run.folder.glob("*.safetensors")) == [
            "best_model.safetensors"
        ]


def test_a_diffusion_model_alone_restores_without_guidance(unet, saved, tmp_path):
    run = import_weights("wolleb", saved(unet.state_dict()), tmp_path / "run", settings=SMALL)
    assert run.recipe.restorer["guidance"]["scale"] == 0 and any(
        "without guidance" in note for note in run.record["notes"]
    )
    with pytest.raises(Fault, match="threshold"):
        load(run.folder)
    finding = load(run.folder, threshold=0.5)(
        np.random.default_rng(0).random((2, 1, 40, 40), dtype=np.float32)
    )
    assert (
        finding.healthy.shape == (2, 1, 40, 40)
        and finding.map.shape == (1, 40, 40)
        and finding.map.max() > 0
    )


def test_a_classifier_alone_is_no_detector(classifier, saved, tmp_path):
    run = import_weights("wolleb-classifier", saved(classifier.state_dict()), tmp_path / "run")
    with pytest.raises(Fault, match="no weights yet"):
        load(run.folder, threshold=0.5)


def test_networks_of_different_channels_do_not_join(unet, saved, tmp_path):
    import_weights("wolleb", saved(unet.state_dict()), tmp_path / "run", settings=SMALL)
    other = Classifier(
        in_channels=1, size=32, width=32, multipliers=(1, 1), blocks=1, attention={"at": (2,)}
    )
    with pytest.raises(Fault, match=r"takes 1 channel.* 2"):
        import_weights("wolleb-classifier", saved(other.state_dict(), "c.pt"), tmp_path / "run")


# -- the other systems -----------------------------------------------------------------------------
def lightning(schedule, network, encoder=None):
    state = {
        "diffusion.alphas_cumprod": schedule.alpha_bar[1:].float(),
        "diffusion.betas": schedule.beta[1:].float(),
    }
    state |= {f"diffusion.model.{key}": value for key, value in network.state_dict().items()}
    state |= {
        f"encoder.encoder.{key}": value
        for key, value in (encoder.state_dict() if encoder else {}).items()
    }
    return {"state_dict": state, "epoch": 3}


PATCHED = {
    "width": 32,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention": {"head_channels": 64, "order": "new"},
    "block": {"scale_shift": True, "residual_sampling": True},
}


def test_pddpm(saved, tmp_path):
    network = filled(UNet(**PATCHED))
    file = saved(lightning(Schedule("cosine", 1000), network))
    run = import_weights(
        "pddpm", file, tmp_path / "run", settings=["canvas.size=32", "restorer.patches.side=16"]
    )
    x = torch.rand(1, 1, 32, 32)
    assert torch.equal(run.restorer()[0].denoiser.network(x, 5), network(x, 5))
    assert (
        run.recipe.restorer["diffusion"]["schedule"] == "cosine"
        and run.record["check"]["answer"] == "clean"
    )


def test_cddpm_with_its_encoder(saved, tmp_path):
    network = filled(UNet(**PATCHED, condition={"vector": 12}))
    eye = filled(ResNet(layers=(1, 2), width=8, outputs=12))
    file = saved(lightning(Schedule("linear", 200), network, eye))
    run = import_weights(
        "cddpm",
        file,
        tmp_path / "run",
        settings=["canvas.size=32", "restorer.walk.start_levels=[50]"],
    )
    restorer, x = run.restorer()[0], torch.rand(1, 1, 32, 32)
    assert torch.equal(restorer.model.encoder(x), eye(x))
    assert (
        restorer.model.denoiser.schedule.steps == 200
        and run.recipe.restorer["diffusion"]["schedule"] == "linear"
    )
    alone = saved(lightning(Schedule("linear", 200), network), "alone.pt")
    assert "encoder is missing" in refused(
        "CHECKPOINT_MISMATCH", "cddpm", alone, tmp_path / "other"
    )


@pytest.mark.parametrize("system", ["thor", "anoddpm"])
def test_reference_weights_answer_as_published(system, shared, saved, tmp_path):
    """Also out of the wrappers that these systems save, and averaged weights before raw ones."""
    folder = shared / "parity" / f"{system}_unet_forward"
    state, arrays = load_file(folder / "weights.safetensors"), np.load(folder / "arrays.npz")
    wrapped = {
        "thor": {"model_weights": state, "epoch": 3, "optimizer_weights": {"step": 1}},
        "anoddpm": {
            "ema": state,
            "model_state_dict": {k: v * 0 for k, v in state.items()},
            "n_epoch": 3,
        },
    }[system]
    heads = ["restorer.network.attention.head_channels=64"] if system == "thor" else []
    run = import_weights(
        system, saved(wrapped), tmp_path / "run", settings=["canvas.size=32", *heads]
    )
    name = "run0." if "run0.x" in arrays else "0."
    x, t = (torch.from_numpy(arrays[f"{name}{key}"]) for key in ("x", "t"))
    with torch.no_grad():
        out = run.restorer()[0].denoiser.network(x, t)
    torch.testing.assert_close(out, torch.from_numpy(arrays[f"{name}out"]), rtol=1e-5, atol=1e-5)


def test_a_thor_network_that_learned_twice_the_noise_less_one_is_mended(shared, saved, tmp_path):
    state = load_file(shared / "parity" / "thor_unet_forward" / "weights.safetensors")
    state |= {
        "unet.out.2.conv.weight": state["unet.out.2.conv.weight"] * 0,
        "unet.out.2.conv.bias": torch.tensor([-1.0]),
    }
    run = import_weights("thor", saved(state), tmp_path / "run", settings=["canvas.size=32"])
    assert run.restorer()[0].denoiser.network.out[2].bias.item() == 0
    assert (
        any("2 noise - 1" in note for note in run.record["notes"])
        and run.record["check"]["answer"] == "noise"
    )


# -- settings from shapes --------------------------------------------------------------------------
@pytest.mark.parametrize(
    "settings",
    [
        {
            "channels": 4,
            "width": 128,
            "multipliers": [1, 1, 2, 2, 4, 4],
            "blocks": 2,
            "attention": {"at": [16]},
            "condition": {"classes": 2},
            "learned_variance": True,
        },
        {
            "width": 128,
            "multipliers": [1, 2, 2],
            "blocks": 3,
            "attention": {"at": []},
            "block": {"scale_shift": True, "residual_sampling": True},
            "condition": {"vector": 512},
        },
        {"width": 32, "multipliers": [1], "blocks": 1, "attention": {"at": [1], "middle": False}},
    ],
)
def test_settings_of_a_unet_are_in_its_shapes(settings):
    with torch.device("meta"):
        state = UNet(**settings).state_dict()
        found = adm.unet_settings(state)
        again = UNet(**found).state_dict()
    assert merged(found, settings) == found
    assert {k: v.shape for k, v in again.items()} == {k: v.shape for k, v in state.items()}


@pytest.mark.parametrize(
    "settings",
    [
        {
            "in_channels": 4,
            "size": 256,
            "width": 32,
            "multipliers": [1, 1, 2, 2, 4, 4],
            "blocks": 4,
            "attention": {"at": [8, 16, 32], "head_channels": 64},
        },
        {
            "in_channels": 1,
            "size": 64,
            "width": 32,
            "multipliers": [1, 1],
            "blocks": 1,
            "attention": {"at": [2], "head_channels": 32},
        },
    ],
)
def test_settings_of_a_classifier_are_in_its_shapes(settings):
    with torch.device("meta"):
        found = adm.classifier_settings(Classifier(**settings).state_dict())
    assert merged(found, settings) == found


# -- what is refused -------------------------------------------------------------------------------
class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_file_that_would_run_code_is_refused_and_runs_none(saved, tmp_path):
    file = saved({"model_state_dict": {}, "extra": Hostile(tmp_path / "pwned")})
    refused("CHECKPOINT_UNSAFE", "wolleb", file, tmp_path / "run")
    assert not (tmp_path / "pwned").exists()


def test_anoddpm_s_own_arguments_are_refused_with_the_way_out(saved, tmp_path):
    file = saved(
        {"ema": {"time_embedding.1.weight": torch.zeros(1)}, "args": collections.defaultdict(str)}
    )
    message = refused("CHECKPOINT_UNSAFE", "anoddpm", file, tmp_path / "run")
    assert "collections.defaultdict" in message and "torch.save(" in message


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_damaged_files_are_refused(content, suffix, unet, tmp_path):
    file = tmp_path / f"weights{suffix}"
    (torch.save if suffix == ".pt" else save_file)(unet.state_dict(), file)
    file.write_bytes(file.read_bytes()[:5000] if content is None else content)
    refused("CHECKPOINT_CORRUPT", "wolleb", file, tmp_path / "run")


def test_a_network_of_another_system_is_refused_with_both_names(classifier, saved, tmp_path):
    message = refused(
        "CHECKPOINT_MISMATCH", "wolleb", saved(classifier.state_dict()), tmp_path / "run"
    )
    assert "of wolleb-classifier, not of wolleb" in message
    refused(
        "no system known here", "thor", saved({"weight": torch.zeros(1)}, "x.pt"), tmp_path / "run"
    )


@pytest.mark.parametrize("change", ["missing", "unknown", "nan", "no tensors", "no variance"])
def test_an_altered_network_is_refused(change, unet, saved, tmp_path):
    state = dict(unet.state_dict())
    if change == "missing":
        del state["middle_block.0.out_layers.3.bias"]
    elif change == "unknown":
        state["middle_block.9.weight"] = torch.zeros(1)
    elif change == "nan":
        state["out.2.bias"] = torch.full((4,), torch.nan)
    elif change == "no tensors":
        state["step"] = 7
    else:
        state |= {"out.2.weight": state["out.2.weight"][:2], "out.2.bias": state["out.2.bias"][:2]}
    code = "CHECKPOINT_NONFINITE" if change == "nan" else "CHECKPOINT_MISMATCH"
    refused(code, "wolleb", saved(state), tmp_path / "run")


def test_safetensors_half_precision_and_parallel_wrappers_are_read(unet, tmp_path):
    state = {f"module.{key}": value.half() for key, value in unet.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    run = import_weights(
        "wolleb", tmp_path / "weights.safetensors", tmp_path / "run", settings=SMALL
    )
    assert run.restorer()[0].denoiser.network.out[2].weight.dtype == torch.float32


def test_the_command(unet, saved, tmp_path, capsys):
    file = str(saved(unet.state_dict()))
    command = ["import-weights", "wolleb", file, "--out", str(tmp_path / "run"), "--set", *SMALL]
    assert main(command) == 0 and Run.open(tmp_path / "run").record["status"] == "imported"
    assert main(command) == 6  # not empty
    assert main(["import-weights", "thor", file, "--out", str(tmp_path / "other")]) == BAD_MODEL
    assert "CHECKPOINT_MISMATCH" in capsys.readouterr().err
