"""Shared fixtures: real data when it is at hand, and one tiny trained run with the pictures it was
trained on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings

from blobs import SIDE, picture
from forked import Server

if TYPE_CHECKING:
    from pseudohealthy.runs.recipe import Recipe

# Property tests look at the same examples every time, so that a change fails because of what it
# changed; HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("search", max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "name": "tiny",
    "summary": "for tests",
    "canvas": {"size": SIDE, "normalise": "range", "value_range": [0, 255], "foreground": "all"},
    "restorer": {
        "name": "ddpm",
        "diffusion": {"levels": 50},
        "walk": {"start_levels": [15], "calls": 3, "eta": 0.0, "draws": 2},
        "network": {
            "width": 8,
            "multipliers": [1, 2],
            "blocks": 1,
            "block": {"scale_shift": True, "groups": 4},
        },
    },
    "training": {
        "steps": 12,
        "batch": 4,
        "rate": 2e-3,
        "ema": 0.9,
        "validate": 4,
        "precision": "fp32",
    },
    "map": {"smooth": 0.7, "quantile": 0.95},
}


def shared_folder() -> Path | None:
    """`shared` beside the repository, or the folder named by PSEUDOHEALTHY_SHARED."""
    folder = Path(os.environ.get("PSEUDOHEALTHY_SHARED", ROOT.parent / "shared"))
    return folder if folder.is_dir() else None


@pytest.fixture
def shared() -> Path:
    """Real images and reference vectors for development; skips the test where they are absent."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("no shared data folder beside the repository (set PSEUDOHEALTHY_SHARED)")
    return folder


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Planes of tests lie among the files of tests, those of other processes as well."""
    usual = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    with pytest.MonkeyPatch.context() as patch:
        if "MPLCONFIGDIR" not in os.environ:  # its list of fonts is not made again
            patch.setenv("MPLCONFIGDIR", str(Path(usual) / "matplotlib"))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny networks are fastest, and bit-reproducible, on one thread."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def talkative(monkeypatch: pytest.MonkeyPatch):
    """--quiet of one test must not silence the next."""
    from pseudohealthy import progress

    monkeypatch.setattr(progress, "quiet", False)
    monkeypatch.setattr(progress, "debug", False)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain folder layout: blobs; in test/bad with a white square and its mask. Read only."""
    from PIL import Image

    root, rng = tmp_path_factory.mktemp("data") / "blobs", np.random.default_rng(0)
    for place, count in (("train/good", 20), ("val/good", 8), ("test/good", 8), ("test/bad", 8)):
        (root / place).mkdir(parents=True)
        for number in range(count):
            image, mask = picture(rng, bright=place == "test/bad")
            name = f"{place.replace('/', '-')}-{number}.png"
            Image.fromarray(image).save(root / place / name)
            if mask.any():
                (root / "masks").mkdir(exist_ok=True)
                Image.fromarray(mask.astype(np.uint8) * 255).save(root / "masks" / name)
    return root


def tiny_recipe(*settings: str) -> Recipe:
    """The recipe of the tiny run with ``section.key=value`` changes."""
    from pseudohealthy.runs.recipe import Recipe

    def copied(table: dict) -> dict:
        return {k: copied(v) if isinstance(v, dict) else v for k, v in table.items()}

    return Recipe(**copied(TINY)).set(settings)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Recipe]:
    return tiny_recipe


@pytest.fixture(scope="session")
def tiny_run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny partial-diffusion model on `pictures`. Read only: copy it to change
    it."""
    from pseudohealthy.workflows.train import train

    return train(
        tiny_recipe(), pictures, tmp_path_factory.mktemp("runs") / "tiny", device="cpu"
    ).folder


@pytest.fixture(scope="session")
def ct_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the identity method in a brain window, on two synthetic heads: nothing to train,
    exact by construction."""
    from pseudohealthy.anomalies.phantoms import head, nifti
    from pseudohealthy.runs.recipe import Recipe
    from pseudohealthy.workflows.train import train

    root, rng = tmp_path_factory.mktemp("heads"), np.random.default_rng(3)
    for place in ("train/good/a", "val/good/b"):
        volume, _, affine = head(rng, shape=(6, 32, 32))
        (root / place).parent.mkdir(parents=True)
        nifti(root / f"{place}.nii.gz", volume, affine)
    canvas = {"size": 32, "normalise": "window", "windows": ["brain"], "foreground": "head-ct"}
    recipe = Recipe("heads", canvas=canvas, restorer={"name": "identity"}, training={"batch": 2})
    return train(recipe, root, tmp_path_factory.mktemp("runs") / "ct", device="cpu").folder


@pytest.fixture(scope="session")
def program() -> Iterator[Callable[..., Any]]:
    """Start ``pseudohealthy ARGUMENTS`` as a process of its own that need not import again; see
    forked.py."""
    with Server() as server:
        yield server.start


@pytest.fixture(params=["forked", pytest.param("torchrun", marks=pytest.mark.slow)])
def in_two_processes(request, program) -> Callable[..., subprocess.CompletedProcess]:
    """Run ``pseudohealthy ARGUMENTS`` in two processes that share the work, with torchrun's
    environment or by torchrun."""

    def by_torchrun(*arguments: object) -> subprocess.CompletedProcess:
        launch = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "-m",
            "pseudohealthy",
        ]
        line = [sys.executable, *launch]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [*line, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=500,
            env=environment,
        )

    def forked(*arguments: object) -> subprocess.CompletedProcess:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        world = {
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        ranks = [program(*arguments, RANK=rank, LOCAL_RANK=rank, **world) for rank in "01"]
        out, err = zip(*(rank.communicate(500) for rank in ranks), strict=True)
        return subprocess.CompletedProcess(
            arguments, max(abs(r.returncode) for r in ranks), "".join(out), "".join(err)
        )

    return forked if request.param == "forked" else by_torchrun


@pytest.fixture(scope="module")
def unpainted() -> Iterator[None]:
    """Figures are made but not drawn, their files hold a few pixels: for tests that look at no
    picture."""
    from matplotlib.figure import Figure
    from PIL import Image

    def save(self: Figure, to: Any, **_: object) -> None:
        Image.new("RGBA", (4, 4)).save(to, "png")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield


@pytest.fixture(scope="module")
def few_resamples() -> Iterator[None]:
    """Bootstraps of 100 draws: for files of tests that look at no interval."""
    from pseudohealthy.metrics import bootstrap

    weights = bootstrap.weights
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            bootstrap,
            "weights",
            lambda patients, n=100, *more: weights(patients, min(n, 100), *more),
        )
        yield


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess]:
    """Run ``pseudohealthy ARGUMENTS`` as its own process, as a user does."""

    def run(*arguments: object, timeout: float = 300, **options) -> subprocess.CompletedProcess:
        line = [sys.executable, "-m", "pseudohealthy", *map(str, arguments)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        return subprocess.run(
            line, capture_output=True, text=True, timeout=timeout, env=environment, **options
        )

    return run


@pytest.fixture
def said(capsys):
    """Run the command in this process: (exit code, standard output, standard error)."""
    from pseudohealthy.__main__ import main

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return code, captured.out, captured.err

    return run
