"""What is looked at while a method trains shows every channel."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from pseudohealthy.training import validation


def drawn(folder, images, monkeypatch) -> np.ndarray:
    rows = np.arange(len(images))
    made = SimpleNamespace(healthy=torch.zeros_like(images), maps=torch.zeros(images[:, 0].shape))
    monkeypatch.setattr(validation, "applied", lambda trainer, cases: [made])
    trainer = SimpleNamespace(
        store=SimpleNamespace(images=lambda chosen: images),
        run=SimpleNamespace(recipe=SimpleNamespace(name="x"), folder=folder),
        step=1,
        budget=SimpleNamespace(batch=1),
        rows=rows,
    )
    validation.draw_diagnostics(trainer, rows[:1], rows[1:])
    return np.asarray(Image.open(folder / "diagnostics_epoch_1.png").convert("L")).astype(int)


def test_a_lesion_in_the_last_of_four_channels_is_as_bright_as_in_the_first(tmp_path, monkeypatch):
    plain = torch.full((2, 4, 16, 16), -1.0)
    first, last = plain.clone(), plain.clone()
    first[0, 0, 4:8, 4:8], last[0, 3, 4:8, 4:8] = 1.0, 1.0
    nothing, one, other = (drawn(tmp_path, images, monkeypatch) for images in (plain, first, last))
    counts = [int((np.abs(picture - nothing) > 250).sum()) for picture in (one, other)]
    assert counts[0] > 100 and abs(counts[0] - counts[1]) < 0.2 * counts[0], (
        "side by side, not averaged"
    )
    assert (one != other).any()
