"""Conditioned diffusion: what the encoder sees, what its vector does, and where its first weights
come from."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import BAD_MODEL, Fault
from pseudohealthy.interop.pretrained import begin
from pseudohealthy.networks.spark import ENCODER
from pseudohealthy.restorers.base import Batch
from pseudohealthy.restorers.conditioned import Conditioned
from pseudohealthy.restorers.spark import MaskedPretraining
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.runs.run import Run
from pseudohealthy.workflows.train import train
from small import merged

pytestmark = pytest.mark.usefixtures("unpainted")

NETWORK = {
    "width": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "block": {"scale_shift": True, "groups": 4},
}
ENCODER_SETTINGS = {"layers": (1, 1), "width": 8, "outputs": 16}


def restorer(**settings) -> Conditioned:
    torch.manual_seed(0)
    made = Conditioned(
        size=16,
        channels=1,
        network=NETWORK,
        encoder=ENCODER_SETTINGS,
        **merged({"diffusion": {"noise": "gaussian"}}, settings),
    )
    for parameter in made.parameters():
        if parameter.abs().max() == 0:
            nn.init.normal_(parameter, std=0.1)
    return made.eval()


class Spy(nn.Module):
    """Remembers inputs; answers with the inner module, or with a function of the noisy image."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.seen = inner, []

    def forward(self, x: Tensor, *given, **named) -> Tensor:
        self.seen.append((x, *given, named))
        return (
            self.inner(x)
            if not isinstance(self.inner, nn.Module)
            else self.inner(x, *given, **named)
        )


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def draw(count: int = 3) -> Draw:
    return Draw(0, list(range(count)))


@torch.no_grad()
def test_the_encoder_sees_the_clean_image_from_0_to_1_once():
    model = restorer(walk={"draws": 2})
    model.model.encoder = spy = Spy(model.model.encoder)  # type: ignore[assignment]
    model.restore(images(), draw())
    ((seen, _),) = spy.seen
    torch.testing.assert_close(seen, (images() + 1) / 2)


@torch.no_grad()
def test_the_vector_of_an_image_changes_its_restoration():
    model, x = restorer(), images()
    own = model.restore(x, draw()).healthy
    model.model.context = lambda x: torch.ones(len(x), 16)  # type: ignore[method-assign]
    assert (model.restore(x, draw()).healthy - own).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("quirks", ["none", "published"])
def test_estimates_take_the_vector_of_any_image_and_the_noise_of_their_own(quirks):
    model = restorer(
        walk={"draws": 2, "clip": False}, diffusion={"noise": "simplex"}, quirks=quirks
    )
    x = images()
    own, other = model.model.context(x), model.model.context(x.flip(0))
    found = [model.estimates(x, own, depth, draw()) for depth in model.walk.start_levels]
    torch.testing.assert_close(torch.stack(found).mean((0, 2)), model.restore(x, draw()).healthy)
    assert found[0].shape == (3, 2, 1, 16, 16) and model.fields(x, 250, draw()).shape == (
        6,
        1,
        16,
        16,
    )
    swapped = model.estimates(x, other, 250, draw())
    assert (
        (swapped[1] - found[0][1]).abs().max()
        < 1e-5
        < 1e-3
        < (swapped[0] - found[0][0]).abs().max()
    )


@torch.no_grad()
@pytest.mark.parametrize("quirks", ["none", "published"])
def test_each_level_has_its_own_noise_and_each_slice_too_unless_published(quirks):
    model = restorer(diffusion={"noise": "simplex"}, walk={"clip": False}, quirks=quirks)
    model.model.denoiser.network = spy = Spy(lambda x: x)
    found = model.restore(torch.zeros(3, 1, 16, 16), draw())
    torch.testing.assert_close(found.healthy, torch.stack(found.trail).mean(0))
    assert [int(steps[0]) for _, steps, _ in spy.seen] == [249, 499, 749]  # the published indices
    fields = [x / x.std() for x, _, _ in spy.seen]
    assert not torch.allclose(fields[0], fields[1], atol=0.1)
    alike = torch.equal(spy.seen[0][0][0], spy.seen[0][0][1])
    assert alike == (quirks == "published")


@torch.no_grad()
def test_draws_are_averaged_before_levels():
    def spread(draws: int) -> float:
        model = restorer(walk={"draws": draws, "start_levels": (500,), "clip": False})
        model.model.denoiser.network = Spy(lambda x: x)
        return model.restore(torch.zeros(1, 1, 16, 16), draw(1)).healthy.std().item()

    assert spread(16) == pytest.approx(spread(1) / 4, rel=0.2)


def test_one_loss_trains_encoder_and_denoiser_together():
    model = restorer().train()
    batch = Batch(images(), images()[:, 0] > -1, None, draw())
    losses = model.loss(batch, "model")
    assert losses.shape == (3,)
    losses.mean().backward()
    silent = [
        name for name, p in model.model.named_parameters() if p.grad is None or not p.grad.any()
    ]
    assert not silent
    assert model.parts() == ("model",)


# -- pretrained encoders ---------------------------------------------------------------------------
def pretrained(path, **encoder) -> MaskedPretraining:
    torch.manual_seed(5)
    spark = MaskedPretraining(
        size=16, channels=1, encoder=ENCODER_SETTINGS | encoder, decoder_width=16
    )
    checkpoint.save(path, spark.state_dict(), {})
    return spark


def test_training_begins_with_the_pretrained_encoder_except_its_last_layer(tmp_path):
    spark = pretrained(tmp_path / "spark.safetensors")
    model = restorer(encoder_weights=str(tmp_path / "spark.safetensors"))
    last = model.model.encoder.fc.weight.clone()
    begin(model)
    own, other = model.model.encoder.state_dict(), spark.model.sparse_encoder.sp_cnn.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own if not name.startswith("fc."))
    assert torch.equal(model.model.encoder.fc.weight, last)


def missing(path):
    pass


def other_encoder(path):
    pretrained(path, width=16)


def no_encoder(path):
    tensors = {k: v for k, v in pretrained(path).state_dict().items() if ENCODER not in k}
    checkpoint.save(path, tensors, {})


def one_tensor_less(path):
    tensors = pretrained(path).state_dict()
    del tensors[f"model.{ENCODER}layer1.0.conv2.weight"]
    checkpoint.save(path, tensors, {})


def damaged(path):
    pretrained(path)
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("make", [missing, other_encoder, no_encoder, one_tensor_less, damaged])
def test_a_file_that_is_not_this_encoder_is_refused_not_skipped(make, tmp_path):
    path = tmp_path / "spark.safetensors"
    make(path)
    with pytest.raises(Fault) as fault:
        begin(restorer(encoder_weights=str(path)))
    assert fault.value.exit == BAD_MODEL and fault.value.code.startswith("CHECKPOINT_")


def test_a_trained_run_does_without_the_file_it_started_from(tmp_path, pictures):
    canvas = {"size": 16, "normalise": "range", "value_range": [0, 255], "foreground": "all"}
    training = {"steps": 2, "batch": 4, "precision": "fp32", "ema": 0.0}
    spark = {"name": "spark", "decoder_width": 16, "encoder": ENCODER_SETTINGS}
    first = train(
        Recipe("spark", canvas=canvas, restorer=spark, training=training),
        pictures,
        tmp_path / "a",
        device="cpu",
    )
    settings = {
        "name": "conditioned",
        "network": NETWORK,
        "encoder": ENCODER_SETTINGS,
        "walk": {"start_levels": [500]},
        "encoder_weights": str(first.weights()),
    }
    # A rate of (almost) nothing: what the run holds is what it began with.
    recipe = Recipe("cddpm", canvas=canvas, restorer=settings, training=training | {"rate": 1e-12})
    run = train(recipe, pictures, tmp_path / "b", device="cpu")
    weights = load_file(first.weights())
    first.weights().unlink()
    model, _ = Run.open(run.folder).restorer()
    begun = weights[f"model.{ENCODER}layer2.0.conv2.weight"]
    torch.testing.assert_close(
        model.model.encoder.get_parameter("layer2.0.conv2.weight").data, begun
    )
