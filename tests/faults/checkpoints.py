"""K: weights that are damaged, hostile, or of something else."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from faults.material import png
from faults.pictures import Evil
from faults.scoring import Done, Trial, fails, row, works
from faults.stage import Stage

BEST = "best_model.safetensors"


def imports(stage: Stage, file: Path, system: str = "anoddpm") -> tuple[Done, Path]:
    out = stage.out()
    return stage.run("import-weights", system, file, "--out", out), out


def changed_run(
    stage: Stage, name: str, change: Callable[[Path], object], run: Path | None = None
) -> Path:
    """A copy of the tiny run with something done to it."""
    folder = stage.folder / name
    shutil.copytree(run or stage.tiny, folder)
    change(folder)
    return folder


def detects(stage: Stage, run: Path) -> tuple[Done, Path]:
    out = stage.out()
    return stage.detect(png(stage.folder / "a.png"), run=run, out=out), out


def rejected(stage: Stage, run: Path, code: str, *words: str) -> Trial:
    done, out = detects(stage, run)
    return fails(done, code, *words, exit=5, **{"nothing written": not out.exists()})


def hostile(path: Path, mark: Path) -> Path:
    """A .pt file whose pickle calls os.system."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"model": Evil(mark)}, protocol=2))
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
    return path


@row("K1", ".pt whose pickle runs a command", "refused, exit 5, the command is not run")
def k1(stage: Stage) -> Iterator[Trial]:
    mark = stage.folder / "pwned"
    done, out = imports(stage, hostile(stage.folder / "evil.pt", mark))
    trial = fails(done, "CHECKPOINT_UNSAFE", exit=5, **{"no run": not out.exists()})
    trial.harms = {"code ran": mark.exists()}
    yield trial


@row(
    "K2", ".pt that fails the safe load and is evil on an unsafe one", "refused, no second attempt"
)
def k2(stage: Stage) -> Iterator[Trial]:
    mark, file = stage.folder / "pwned", stage.folder / "legacy.pt"
    file.write_bytes(pickle.dumps(Evil(mark), protocol=2))  # neither zip nor torch's old format
    done, out = imports(stage, file)
    trial = Trial(done, (5,), facts={"no run": not out.exists()}, harms={"code ran": mark.exists()})
    yield trial
    run = changed_run(stage, "run", lambda folder: shutil.copy(file, folder / BEST))
    done, _ = detects(stage, run)
    yield Trial(done, (5,), harms={"code ran": mark.exists()}, code="CHECKPOINT_CORRUPT")


@row("K3", "weights for a torch whose safe loader has holes", "the importer refuses torch < 2.10")
def k3(stage: Stage) -> Iterator[Trial]:
    file = stage.folder / "sound.pt"
    torch.save({"a": torch.ones(3)}, file)
    true = torch.__version__
    torch.__version__ = "2.5.1"  # type: ignore[assignment]
    try:
        done, out = imports(stage, file)
    finally:
        torch.__version__ = true
    yield fails(done, "TORCH_OLD", "2.10", exit=5, **{"no run": not out.exists()})


def header(
    path: Path, entries: dict[str, Any] | bytes, data: bytes = b"", length: int | None = None
) -> Path:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


@row(
    "K4",
    "safetensors: header of 200 MB, 100 k tensors, overlapping offsets, overflowing shape",
    "refused quickly",
    quick=False,
)
def k4(stage: Stage) -> Iterator[Trial]:
    def entry(shape: list[int], at: list[int]) -> dict[str, Any]:
        return {"dtype": "F32", "shape": shape, "data_offsets": at}

    files = {
        "long": header(stage.folder / "long", b"{" + b" " * (2 * 10**8 - 2) + b"}"),
        "many": header(
            stage.folder / "many", {f"t{k}": entry([0], [0, 0]) for k in range(100_000)}
        ),
        "overlap": header(
            stage.folder / "overlap", {"a": entry([2], [0, 8]), "b": entry([2], [4, 12])}, bytes(12)
        ),
        "overflow": header(
            stage.folder / "overflow", {"a": entry([2**62, 2**62], [0, 4])}, bytes(4)
        ),
    }
    for name, file in files.items():
        run = changed_run(
            stage, f"run-{name}", lambda folder, file=file: shutil.move(file, folder / BEST)
        )
        trial = rejected(stage, run, "CHECKPOINT_CORRUPT")
        trial.exact = {"within 5 s": trial.done.seconds < 5, "under 600 MB": trial.done.grown < 600}
        yield trial


@row(
    "K5",
    "truncated or empty weights, wrong sha256",
    "CHECKPOINT_CORRUPT; the previous state only when resuming, and said",
)
def k5(stage: Stage) -> Iterator[Trial]:
    for size in (0, 3000):
        run = changed_run(
            stage, f"cut-{size}", lambda folder, size=size: os.truncate(folder / BEST, size)
        )
        yield rejected(stage, run, "CHECKPOINT_CORRUPT")
        (stage.folder / f"{size}.pt").write_bytes(
            b"PK\x03\x04" + bytes(max(0, size - 4)) if size else b""
        )
        yield fails(imports(stage, stage.folder / f"{size}.pt")[0], "CHECKPOINT_CORRUPT", exit=5)

    def flip(folder: Path) -> None:
        raw = bytearray((folder / BEST).read_bytes())
        raw[-9] ^= 1
        (folder / BEST).write_bytes(raw)

    yield rejected(stage, changed_run(stage, "flipped", flip), "CHECKPOINT_CORRUPT", "sha256")
    run = changed_run(stage, "resumed", lambda folder: None)
    done = stage.run(
        "train", "--resume", run, "--data", stage.pictures, "--steps", 16, "--device", "cpu"
    )
    assert done.exit == 0, done.err
    os.truncate(run / "resume.safetensors", 5000)
    done = stage.run(
        "train", "--resume", run, "--data", stage.pictures, "--steps", 18, "--device", "cpu"
    )
    yield works(
        done,
        "previous",
        **{"went on": json.loads((run / "run.json").read_text()).get("step") == 18},
    )


@row(
    "K6",
    "weights of another architecture, missing or extra keys",
    "the first 5 differing keys, exit 5",
)
def k6(stage: Stage) -> Iterator[Trial]:
    def renamed(folder: Path) -> None:
        tensors = load_file(folder / BEST)
        names = [name for name in tensors if "network" in name][:7]
        save_file(
            {(f"other.{k}" if k in names else k): v for k, v in tensors.items()}, folder / BEST
        )

    yield rejected(
        stage,
        changed_run(stage, "renamed", renamed),
        "CHECKPOINT_MISMATCH",
        "missing",
        "and 9 more",
    )
    torch.save({"layer.weight": torch.ones(3, 3)}, stage.folder / "other.pt")
    yield fails(
        imports(stage, stage.folder / "other.pt")[0], "CHECKPOINT_MISMATCH", "layer.weight", exit=5
    )


@row("K7", "NaN or infinite weights", "refused")
def k7(stage: Stage) -> Iterator[Trial]:
    for value in (np.nan, np.inf):

        def spoil(folder: Path, value: float = value) -> None:
            tensors = load_file(folder / BEST)
            name = next(k for k, v in tensors.items() if v.is_floating_point() and v.dim() > 1)
            tensors[name].view(-1)[0] = value
            save_file(tensors, folder / BEST)

        yield rejected(stage, changed_run(stage, f"run-{value}", spoil), "CHECKPOINT_NONFINITE")


@row(
    "K8",
    "a classifier given as diffusion model; 1 channel against 4",
    "exit 5 with both signatures",
)
def k8(stage: Stage) -> Iterator[Trial]:
    from pseudohealthy.networks.classifier import Classifier

    torch.manual_seed(0)
    shape = {"width": 32, "multipliers": (1, 1), "blocks": 1, "attention": {"at": (2,)}}
    torch.save(
        Classifier(in_channels=1, size=32, **shape).state_dict(), stage.folder / "classifier.pt"
    )
    done, out = imports(stage, stage.folder / "classifier.pt", "wolleb")
    yield fails(done, "CHECKPOINT_MISMATCH", "wolleb", exit=5, **{"no run": not out.exists()})

    def four(folder: Path) -> None:
        text = (folder / "recipe.toml").read_text()
        (folder / "recipe.toml").write_text(text.replace("channels = 1", "channels = 4", 1))

    yield rejected(stage, changed_run(stage, "four", four), "CHECKPOINT_MISMATCH", "wanted (")


@row(
    "K9",
    "model trained with another preprocessing than its recipe now says",
    "a note in every finding (or exit 5)",
    adapted="a note in every finding, the milder of the two outcomes allowed",
)
def k9(stage: Stage) -> Iterator[Trial]:
    def other(folder: Path) -> None:
        text = (folder / "recipe.toml").read_text()
        assert 'normalise = "range"' in text
        (folder / "recipe.toml").write_text(
            text.replace('normalise = "range"', 'normalise = "percentile"')
        )

    done, _ = detects(stage, changed_run(stage, "edited", other))
    yield works(done, "RUN_CHANGED", **{"a result": done.exit == 0})


@row(
    "K11",
    "the run's weights exchanged for others of its architecture",
    "refused: not the weights of the run's record",
    adapted=(
        "no zip or URL of a model is ever fetched; the same attack on a run folder is staged"
        " instead"
    ),
)
def k11(stage: Stage) -> Iterator[Trial]:
    def exchange(folder: Path) -> None:
        from pseudohealthy.runs import checkpoint

        tensors, state, _ = checkpoint.load(folder / BEST)
        checkpoint.save(
            folder / BEST,
            {k: v * 1.5 if v.is_floating_point() else v for k, v in tensors.items()},
            state,
        )

    yield rejected(stage, changed_run(stage, "exchanged", exchange), "CHECKPOINT_CORRUPT", "sha256")
