"""Perceptual distance: LPIPS where its weights are found, an honest stand-in where they are not."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pseudohealthy.errors import Fault
from pseudohealthy.networks.perceptual import TRUNKS, Perceptual
from pseudohealthy.runs import checkpoint

# torchvision's, without the classifier.
SIZES = {"squeeze": 722_496, "alex": 2_469_696, "vgg": 14_714_688}


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch, tmp_path):
    """As on a machine without lpips and torchvision, whatever this one has."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


def images(seed=0, channels=1, size=40):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, channels, size, size, generator=generator) * 2 - 1


def trunk_weights(trunk, seed=0):
    """Random weights under torchvision's names."""
    generator = torch.Generator().manual_seed(seed)
    own = Perceptual(trunk).state_dict()
    return {
        k: 0.1 * torch.randn(v.shape, generator=generator)
        for k, v in own.items()
        if k.startswith("features.")
    }


def heads(trunk, seed=1):
    generator = torch.Generator().manual_seed(seed)
    own = Perceptual(trunk).state_dict()
    found = {
        k: torch.rand(v.shape, generator=generator)
        for k, v in own.items()
        if k.startswith("heads.")
    }
    return {
        k.replace("heads.", "lin").replace(".weight", ".model.1.weight"): v
        for k, v in found.items()
    }


def test_trunks_are_those_of_torchvision():
    for trunk, size in SIZES.items():
        module = Perceptual(trunk)
        assert sum(b.numel() for b in module.features.buffers()) == size
        assert not list(module.parameters())  # fixed: neither trained nor counted
    assert "features.12.expand3x3.weight" in Perceptual("squeeze").state_dict()
    assert "features.28.weight" in Perceptual("vgg").state_dict()


@pytest.mark.parametrize("trunk", ["squeeze", "alex"])
def test_lpips_is_the_published_formula(tmp_path, trunk):
    save_file(trunk_weights(trunk) | heads(trunk), tmp_path / f"{trunk}.safetensors")
    module = Perceptual(trunk, str(tmp_path))
    assert module.description == f"LPIPS ({trunk})"
    x, y = images(0, 3, 64), images(1, 3, 64)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    a, b = (((v - shift.view(3, 1, 1)) / scale.view(3, 1, 1)) for v in (x, y))
    total = torch.zeros(2, 1, 64, 64)
    for tap, head in zip(TRUNKS[trunk].taps, heads(trunk).values(), strict=True):
        f, g = (F.normalize(module.features[: tap + 1](v), dim=1, eps=1e-10) for v in (a, b))
        distance = ((f - g) ** 2 * head).sum(1, keepdim=True)
        total += F.interpolate(distance, size=(64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(module(x, y), total, rtol=1e-4, atol=1e-5)


def test_published_heads_load_by_their_names(shared, tmp_path):
    """The linear heads of the lpips package, beside any trunk; the newer version wins where a
    folder has both."""
    folder = shared / "data" / "lpips-linear"
    for trunk in SIZES:
        place = tmp_path / trunk
        place.mkdir()
        save_file(trunk_weights(trunk), place / f"{trunk}net.safetensors")
        for version in ("v0.0", "v0.1"):
            (place / version).mkdir()
            (place / version / f"{trunk}.pth").write_bytes(
                (folder / version / f"{trunk}.pth").read_bytes()
            )
        module = Perceptual(trunk, str(place))
        assert module.ready
        published = torch.load(
            folder / "v0.1" / f"{trunk}.pth", map_location="cpu", weights_only=True
        )
        for index, head in enumerate(module.heads):
            assert torch.equal(head.weight, published[f"lin{index}.model.1.weight"])
        x = images()
        assert module(x, x).abs().max() == 0
        assert (module(x, images(1)) >= 0).all()  # published heads are not negative


def test_names_of_the_lpips_package_and_of_thor_checkpoints(tmp_path):
    content = {"scaling_layer.shift": torch.zeros(1)}
    for key, value in trunk_weights("squeeze").items():
        content[f"net.slice1.{key.removeprefix('features.')}"] = value
    content |= {k.replace("lin", "lins.", 1): v for k, v in heads("squeeze").items()}
    checkpoint_of_thor = {
        "model_weights": {f"l_pips_sq.{k}": v for k, v in content.items()},
        "epoch": 1,
    }
    torch.save(checkpoint_of_thor, tmp_path / "latest_model.pt")
    module = Perceptual("squeeze", str(tmp_path / "latest_model.pt"))
    assert module.ready
    assert torch.equal(
        module.features[3].squeeze.weight, trunk_weights("squeeze")["features.3.squeeze.weight"]
    )


def test_grey_images_are_shown_as_grey_colours(tmp_path):
    save_file(trunk_weights("squeeze") | heads("squeeze"), tmp_path / "squeeze.safetensors")
    module = Perceptual("squeeze", str(tmp_path))
    x, y = images(0), images(1)
    grey = module(x, y)
    torch.testing.assert_close(grey, module(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1)))
    two = module(torch.cat([x, x], 1), torch.cat([y, x], 1))
    torch.testing.assert_close(two, grey / 2)


def test_without_weights_the_stand_in_says_so():
    absent, chosen = Perceptual("squeeze"), Perceptual("none")
    assert (
        "stand-in for LPIPS" in absent.description
        and "squeeze weights not found" in absent.description
    )
    assert "stand-in for LPIPS" in chosen.description
    x, y = images(0), images(1)
    assert torch.equal(absent(x, y), chosen(x, y))
    assert chosen(x, x).abs().max() < 1e-5
    assert chosen(x, y).min() >= 0 and chosen(x, y).max() <= 1


def test_the_stand_in_rises_where_structure_changes():
    x = F.interpolate(images(size=8), size=64, mode="bicubic").clamp(-0.7, 0.7)
    y = x.clone()
    y[..., 20:32, 20:32] += 0.6
    distance = Perceptual("none")(x, y)
    inside, outside = distance[..., 20:32, 20:32].mean(), distance[..., 44:, 44:].mean()
    assert inside > 0.05 and outside < 0.01 * inside


def test_a_saved_run_keeps_its_distance_on_a_machine_without_the_weights(tmp_path):
    save_file(trunk_weights("squeeze") | heads("squeeze"), tmp_path / "squeeze.safetensors")
    trained = Perceptual("squeeze", str(tmp_path / "squeeze.safetensors"))
    checkpoint.save(tmp_path / "run.safetensors", trained.state_dict(), {})
    other = Perceptual("squeeze", "no/such/place")
    assert not other.ready
    state, _, _ = checkpoint.load(tmp_path / "run.safetensors", expected=other.state_dict())
    other.load_state_dict(state)
    assert other.description == "LPIPS (squeeze)"
    assert torch.equal(other(images(0), images(1)), trained(images(0), images(1)))
    # And the other way round: a run made with the stand-in does not change where weights are found.
    stood_in = copy.deepcopy(trained)
    stood_in.load_state_dict(Perceptual("squeeze").state_dict())
    assert "stand-in" in stood_in.description


def test_weights_of_another_trunk_are_refused(tmp_path):
    wrong = {k: v.repeat(2, *[1] * (v.ndim - 1)) for k, v in trunk_weights("squeeze").items()}
    save_file(wrong | heads("squeeze"), tmp_path / "squeeze.safetensors")
    with pytest.raises(Fault) as caught:
        Perceptual("squeeze", str(tmp_path))
    assert caught.value.code == "PERCEPTUAL"
