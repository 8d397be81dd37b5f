"""Reference vectors of published systems: where they are and how a case is read.

PSEUDOHEALTHY_PARITY=DIR runs these tests on the vectors in DIR, and a case that is there is never
skipped. Otherwise the subset in ``vectors/`` is used, and ``parity/`` of the shared data folder for
the rest.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pseudohealthy.networks.unet import UNet

BUNDLED = Path(__file__).parent / "vectors"


class Case:
    """One operation of a published system: ``case.json``, arrays by run, weights by file or
    generated."""

    def __init__(self, folder: Path, elsewhere: list[Path]):
        self.folder, self.elsewhere = folder, elsewhere
        self.info: dict[str, Any] = json.loads((folder / "case.json").read_text())
        self.arrays = np.load(folder / "arrays.npz")

    @property
    def runs(self) -> list[dict[str, Any]]:
        return self.info.get("runs", [{"name": None}])

    def tensors(self, run: str | None = None) -> dict[str, Tensor]:
        """The arrays of a run by their own names; integers stay integers."""
        prefix = f"{run}." if run else ""
        names = [name for name in self.arrays.files if name.startswith(prefix)]
        return {name.removeprefix(prefix): torch.from_numpy(self.arrays[name]) for name in names}

    def weights(self, run: str | None = None) -> dict[str, Tensor]:
        """The state dict of a run (``weights_RUN.safetensors`` where there is one) or of the
        case."""
        files = list(self.info["weight_files"])
        file = next((f for f in files if f.endswith(f"weights_{run}.safetensors")), files[0])
        places = [self.folder / file, *(root / self.folder.name / file for root in self.elsewhere)]
        return load_file(next((p for p in places if p.is_file()), places[0]))

    def generated(self) -> dict[str, Tensor]:
        """Weights of a full-size case, by the recipe in its ``conventions.weights``."""
        weights, gains = {}, set(self.info["gains"])
        for i, name in enumerate(sorted(self.info["parameter_shapes"])):
            shape = self.info["parameter_shapes"][name]
            r = (
                np.random.RandomState(self.info["weight_seed"] + i)
                .standard_normal(shape)
                .astype(np.float32)
            )
            if r.ndim >= 2:
                r *= np.float32(0.8 / np.sqrt(r[0].size))
            else:
                r = 1 + np.float32(0.1) * r if name in gains else np.float32(0.05) * r
            weights[name] = torch.from_numpy(r)
        return weights

    def enlarged(self, small: Tensor) -> Tensor:
        """The image of a full-size case, by the times that its ``conventions.x`` repeats the stored
        one."""
        times = int(re.search(r"repeated (\d+) times", self.info["conventions"]["x"]).group(1))
        return small.repeat_interleave(times, 2).repeat_interleave(times, 3)

    def thinned(self, out: Tensor) -> Tensor:
        """What is stored of the output of a full-size case, by its ``conventions.out_sub``."""
        step = re.search(r"::(\d+)", self.info["conventions"]["out_sub"])
        return out[..., :: int(step.group(1)), :: int(step.group(1))] if step else out

    def close(self, got: Tensor, expected: Tensor, quantity: str, **fallback: float) -> None:
        """Assert equality within the tolerance that the case states for this quantity."""
        tolerance = {"rtol": 0.0, "atol": 0.0} | (self.info["tolerance"].get(quantity) or fallback)
        torch.testing.assert_close(
            got, expected, rtol=tolerance["rtol"], atol=tolerance["atol"], check_dtype=False
        )


class Stored:
    """A draw that hands out a run's stored noise fields in their order, whatever it is asked to
    be."""

    def __init__(self, arrays: dict[str, Tensor]):
        self.fields = [arrays[name] for name in sorted(arrays) if name.startswith("noise_")]

    def itself(self, *_: Any, **__: Any) -> Stored:
        return self

    of_kind = fork = repeat = itself

    def noise(self, like: Tensor) -> Tensor:
        return self.fields.pop(0)

    __call__ = noise


@pytest.fixture
def stored():
    """stored(arrays) -> a draw of the fields ``noise_*`` among them."""
    return Stored


@pytest.fixture
def network():
    """network(interop, state, **options) -> (UNet with these weights, its settings): a module of
    `interop` converts."""

    def convert(
        interop: Any, state: dict[str, Tensor], **options: Any
    ) -> tuple[UNet, dict[str, Any]]:
        settings, weights = interop.convert(state, **options)
        net = UNet(**settings)
        net.load_state_dict(weights)
        return net.eval(), settings

    return convert


@pytest.fixture
def parity(request):
    """parity(name) -> Case; skips where the case is absent."""

    def find(name: str) -> Case:
        given = os.environ.get("PSEUDOHEALTHY_PARITY")
        if given:
            roots = [Path(given)]
        else:
            roots = [BUNDLED]
            if not (BUNDLED / name / "case.json").is_file():
                roots.append(request.getfixturevalue("shared") / "parity")
        for root in roots:
            if (root / name / "case.json").is_file():
                return Case(root / name, roots)
        pytest.skip(f"no reference vectors '{name}' in {', '.join(map(str, roots))}")

    return find
