"""pDDPM: boxes, one-step patch reconstruction, stitching and training loss of the published code,
with its draws."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from pseudohealthy.restorers import patched
from pseudohealthy.restorers.patched import Box, Patched

heavy = () if os.environ.get("PSEUDOHEALTHY_PARITY") else pytest.mark.slow


class Stored:
    """A Draw whose fields are the stored ones; with copies, one field for each copy of an item."""

    def __init__(self, fields: list[Tensor], copies: int = 1):
        self.fields, self.copies = fields, copies
        self.seed = 0

    def fork(self, tag):
        return self

    def of_kind(self, kind, **settings):
        return self

    def repeat(self, copies):
        return Stored(self.fields, copies)

    def noise(self, like: Tensor) -> Tensor:
        found = torch.stack([self.fields.pop(0) for _ in range(self.copies)], 1).flatten(0, 1)
        assert found.shape == like.shape
        return found


def fields(arrays: dict[str, Tensor]) -> list[Tensor]:
    return [arrays[name] for name in sorted(arrays) if name.startswith("noise_")]


def restorer(case, images: Tensor, **settings) -> Patched:
    c = case.info["unet"]
    network = {
        "width": c["base"],
        "multipliers": tuple(c["mult"]),
        "blocks": c["res_blocks"],
        "block": {"scale_shift": True, "residual_sampling": True},
        "attention": {"head_channels": c["head_channels"], "order": "new"},
    }
    channels, size = images.shape[1], images.shape[-1]
    made = Patched(
        size=size, channels=channels, network=network, **{"walk": {"clip": False}, **settings}
    )
    weights = {
        k.removeprefix("model."): v for k, v in case.weights().items() if k.startswith("model.")
    }
    made.denoiser.network.load_state_dict(weights)
    return made.eval()


def corners(box: Box) -> list[int]:
    """As published: x_min, y_min, x_max, y_max."""
    return [box.left, box.top, box.right, box.bottom]


RUNS = ["p32_rect_gauss", "p60_overlap_cut"]
RUNS += [
    pytest.param(name, marks=heavy) for name in ("p48_simplex", "p60_overlap_avg", "p40_truncated")
]


@pytest.mark.parametrize("name", RUNS)
@torch.no_grad()
def test_patch_inference(parity, monkeypatch, name):
    case = parity("pddpm_patch_inference")
    (run,) = (run for run in case.runs if run["name"] == name)
    a = case.tensors(run["name"])
    overlap = {"cut": "cut", "avg": "average"}[run["agg_overlap"]] if run["overlap"] else "none"
    one_field = run["noise"] == "simplex"
    quirks = "published" if one_field else "none"
    settings = {
        "patches": {"side": run["patch_size"], "overlap": overlap},
        "diffusion": {"noise": "simplex" if one_field else "gaussian"},
        "walk": {"start_levels": (run["t"] + 1,), "clip": False},
    }
    model = restorer(case, a["x"], **settings, quirks=quirks)
    grid = model.grid(*a["x"].shape[-2:])
    assert [corners(box) for box, _ in grid] == a["boxes"].tolist()
    if overlap == "cut":
        assert [corners(cell) for _, cell in grid] == a["boxes_cut"].tolist()
    stored = fields(a)
    if one_field:
        monkeypatch.setattr(
            patched, "shared_fields", lambda draw, like, *_, f=stored: f.pop(0).to(like.dtype)
        )
    images = 2 * a["x"] - 1
    healthy = (model.restore(images, Stored(stored)).healthy + 1) / 2
    assert not stored
    expected = a["reconstruction_intended"] if run.get("defective") else a["reconstruction"]
    case.close(healthy, expected, "reconstruction")
    if not run.get("defective"):
        case.close((a["x"] - healthy).abs(), a["residual"], "residual", atol=1e-5)

    # One loss per patch call: the mean over the whole image and all slices.
    model.published, every = True, fields(a) * (len(grid) if one_field else 1)
    t = torch.full((len(images),), run["t"] + 1)
    for (box, _), field, loss in zip(grid, every, a["patch_losses"], strict=True):
        noise = field.to(images.dtype).expand_as(images)
        case.close(model.patch_loss(images, noise, t, [box] * len(images)).mean(), loss, "loss")


def test_patch_training_loss_and_gradients(parity):
    case = parity("pddpm_patch_inference")
    for name in case.info["loss_runs"]:
        a = case.tensors(name)
        model = restorer(case, a["x"], quirks="published")
        boxes = [Box(top, bottom, left, right) for left, top, right, bottom in a["boxes"].tolist()]
        losses = model.patch_loss(2 * a["x"] - 1, a["noise_000"], a["t"] + 1, boxes)
        case.close(losses.mean(), a["loss"], "loss")
        losses.mean().backward()
        weights = dict(model.denoiser.network.named_parameters())
        case.close(weights["out.2.weight"].grad, a["grad_out_2_weight"], "grads")
        case.close(
            weights["input_blocks.0.0.weight"].grad, a["grad_input_blocks_0_0_weight"], "grads"
        )


@pytest.mark.parametrize(("scale_shift", "parameters"), [(True, 37_513_857), (False, 34_493_313)])
def test_parameter_count(scale_shift, parameters):
    """pDDPM, and the DDPM baseline of the same repository, which is not the same network."""
    network = {
        "width": 128,
        "multipliers": (1, 2, 2),
        "blocks": 3,
        "attention": {"head_channels": 64, "order": "new"},
        "block": {"scale_shift": scale_shift, "residual_sampling": True},
    }
    with torch.device("meta"):
        assert (
            sum(p.numel() for p in Patched(size=96, channels=1, network=network).parameters())
            == parameters
        )
