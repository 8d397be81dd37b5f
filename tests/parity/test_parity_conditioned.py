"""cDDPM: context encoder, conditioned one-step reconstruction and training loss of the published
code."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pseudohealthy.networks.resnet import ResNet
from pseudohealthy.restorers import conditioned
from pseudohealthy.restorers.conditioned import Conditioned


class Given(nn.Module):
    """An encoder that answers with the stored vectors."""

    def __init__(self, vectors: Tensor):
        super().__init__()
        self.vectors = vectors

    def forward(self, x: Tensor) -> Tensor:
        return self.vectors


class Stored:
    """A Draw whose fields are the stored ones, and levels the stored steps."""

    seed, keys = 0, [0]

    def __init__(self, fields: list[Tensor], steps: Tensor | None = None):
        self.fields, self.steps = fields, steps

    def fork(self, tag):
        return self

    def of_kind(self, kind, **settings):
        return self

    def repeat(self, copies):
        assert copies == 1
        return self

    def integers(self, low, high):
        assert (low, high) == (1, 1001)
        return self.steps + 1

    def noise(self, like):
        return self.fields.pop(0)


def fields(arrays: dict[str, Tensor]) -> list[Tensor]:
    return [arrays[name] for name in sorted(arrays) if name.startswith("noise_")]


def restorer(case, arrays: dict[str, Tensor], **settings) -> Conditioned:
    c = case.info["unet"]
    network = {
        "width": c["base"],
        "multipliers": tuple(c["mult"]),
        "blocks": c["res_blocks"],
        "block": {"scale_shift": True, "residual_sampling": True},
        "attention": {"head_channels": c["head_channels"], "order": "new"},
    }
    encoder = {"layers": (1,), "width": 8, "outputs": c["cond_dim"]}
    channels, size = arrays["x"].shape[1], arrays["x"].shape[-1]
    made = Conditioned(
        size=size,
        channels=channels,
        network=network,
        encoder=encoder,
        **{"walk": {"clip": False}, **settings},
    )
    weights = {
        k.removeprefix("model."): v for k, v in case.weights().items() if k.startswith("model.")
    }
    made.model.denoiser.network.load_state_dict(weights)
    made.model.encoder = Given(arrays["cond"])  # type: ignore[assignment]
    return made.eval()


@torch.no_grad()
def test_reconstruction(parity, monkeypatch):
    case = parity("cddpm_reconstruct")
    for run in case.runs:
        a = case.tensors(run["name"])
        depths = tuple(t + 1 for t in run["t"])
        one_field = run["noise"] == "simplex"
        quirks = "published" if one_field else "none"
        model = restorer(
            case,
            a,
            quirks=quirks,
            walk={"start_levels": depths, "clip": False},
            diffusion={"noise": "simplex" if one_field else "gaussian"},
        )
        stored = fields(a)
        if one_field:
            monkeypatch.setattr(
                conditioned,
                "shared_fields",
                lambda draw, like, *_, f=stored: f.pop(0).to(like.dtype),
            )
        restoration = model.restore(2 * a["x"] - 1, Stored(stored))
        assert not stored
        healthy = (restoration.healthy + 1) / 2
        case.close(healthy, a["reconstruction"], "reconstruction")
        case.close((a["x"] - healthy).abs(), a["residual"], "residual", atol=1e-5)
        each = (torch.stack(restoration.trail) + 1) / 2
        case.close(each, a["reco_each"], "reconstruction")
        losses = (2 * each - 2 * a["x"]).abs().flatten(1).mean(1)
        case.close(losses, a["losses"], "loss")


def test_training_loss_and_gradients(parity):
    case = parity("cddpm_reconstruct")
    for name in case.info["loss_runs"]:
        a = case.tensors(name)
        model = restorer(case, a, diffusion={"noise": "gaussian"})
        batch = conditioned.Batch(2 * a["x"] - 1, torch.ones(0), None, Stored(fields(a), a["t"]))  # type: ignore[arg-type]
        loss = model.loss(batch, "model").mean()
        case.close(loss, a["loss"], "loss")
        loss.backward()
        weights = dict(model.model.denoiser.network.named_parameters())
        case.close(weights["out.2.weight"].grad, a["grad_out_2_weight"], "grads")
        case.close(
            weights["input_blocks.0.0.weight"].grad, a["grad_input_blocks_0_0_weight"], "grads"
        )


@torch.no_grad()
def test_encoder_forward(parity):
    case = parity("cddpm_encoder_forward")
    encoder, shapes = ResNet(in_channels=1), case.info["state_dict_shapes"]
    state = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    assert {k: list(v.shape) for k, v in state.items()} == shapes
    for i, name in enumerate(sorted(shapes)):
        if name.endswith("num_batches_tracked"):
            continue
        r = (
            np.random.RandomState(case.info["weight_seed"] + i)
            .standard_normal(shapes[name])
            .astype(np.float32)
        )
        if name.endswith("running_var"):
            r = 1 + np.float32(0.2) * np.abs(r)
        elif name.endswith("running_mean") or (r.ndim < 2 and name.endswith("bias")):
            r = np.float32(0.05) * r
        elif r.ndim < 2:
            r = 1 + np.float32(0.1) * r
        else:
            r = r / np.float32(np.sqrt(r[0].size))
        state[name] = torch.from_numpy(r)
    encoder.load_state_dict({k.removeprefix("encoder."): v for k, v in state.items()})
    a = case.tensors()
    case.close(encoder.eval()(a["x"]), a["out"], "out")


def test_parameter_counts():
    network = {
        "width": 128,
        "multipliers": (1, 2, 2),
        "blocks": 3,
        "attention": {"head_channels": 64, "order": "new"},
        "block": {"scale_shift": True, "residual_sampling": True},
    }
    with torch.device("meta"):
        model = Conditioned(size=96, channels=1, network=network).model
    counts = {
        name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()
    }
    assert counts == {"encoder": 24_550_848, "denoiser": 44_068_481}
