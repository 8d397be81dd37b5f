"""Same case, same map: whatever the threads, the processor's instructions, the processes and the
type of the file."""

from __future__ import annotations

import csv
import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blobs import picture
from pseudohealthy import models
from pseudohealthy.anomalies.phantoms import nifti
from pseudohealthy.detection.detector import Detector
from pseudohealthy.devices import computes_bf16
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.io import read
from pseudohealthy.io.scan import Scan
from pseudohealthy.restorers.apply import keys
from pseudohealthy.runs.run import Run

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
PLAIN = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}
# Environment of a process.
PROCESSES = {"AVX2": AVX2, "SSE4.1": PLAIN, "two threads": {"OMP_NUM_THREADS": "2"}}
THREADS = {"one thread here": 1, "two threads here": 2, "three threads here": 3}
TORCHRUN = {"torchrun 1": 1, "torchrun 2": 2}
QUICK = ("two threads here", "SSE4.1")
WAYS = [
    way if way in QUICK else pytest.param(way, marks=pytest.mark.slow)
    for way in (*THREADS, *PROCESSES, *TORCHRUN)
]
ONE_STEP, WALK = 1e-4, 1e-3  # of the map's range
DETECT = """
import hashlib, sys
import torch
from pseudohealthy.__main__ import main
from pseudohealthy.diffusion.noise import Draw

def detect(words):
    runs, inputs, out = words[:2], words[2:4], words[4]
    for run, path in zip(runs, inputs):
        code = main(["detect", run, path, "--out", f"{out}/{run.rsplit('/')[-1]}", "--kinds",
                     "volumes", "--precision", "fp32", "--device", "cpu", "--quiet"])
        assert not code, code

def noise():
    like, made = torch.zeros(3, 1, 100, 101), []
    for kind in ("gaussian", "simplex"):
        keys = [("plane", i) for i in range(3)]
        made += [Draw(7, keys, kind).noise(x) for x in (like, like[..., :3])]
    return hashlib.md5(b"".join(field.numpy().tobytes() for field in made)).hexdigest()
"""
TO_ITS_END = "\ndetect(sys.argv[1:])\nprint(noise())\n"
here: dict[str, Any] = {}
exec(DETECT, here)


@pytest.fixture(scope="module")
def detected(tiny_run, tmp_path_factory):
    """Detect in one way, once: (case, run) -> map and row of an example of brain-t1 and of a
    picture by a walk, and the noise."""
    root = tmp_path_factory.mktemp("same")
    Image.fromarray(picture(np.random.default_rng(5), bright=True)[0]).save(root / "blob.png")
    example = sorted((models.examples("brain-t1") / "test" / "bad").glob("*.png"))[0]

    @functools.cache
    def run(way: str) -> tuple[list, str]:
        words = [
            *map(
                str,
                ("brain-t1", tiny_run, example, root / "blob.png", root / way.replace(" ", "-")),
            )
        ]
        if way in THREADS:
            torch.set_num_threads(THREADS[way])
            try:
                here["detect"](words)
                noise = here["noise"]()
            finally:
                torch.set_num_threads(1)
        else:
            script = root / "detect.py"
            script.write_text(DETECT + TO_ITS_END)
            start = (
                ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={TORCHRUN[way]}"]
                if way in TORCHRUN
                else []
            )
            done = subprocess.run(
                [sys.executable, *start, script, *words],
                env=os.environ | PROCESSES.get(way, {}),
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr[-2000:]
            (noise,) = set(re.findall(r"\b[0-9a-f]{32}\b", done.stdout))
        cases = zip(words[:2], words[2:4], strict=True)
        return [
            read_out(Path(words[4]) / Path(name).name, Path(path).stem) for name, path in cases
        ], noise

    return run


def read_out(folder: Path, case: str) -> tuple[np.ndarray, dict[str, str]]:
    with (folder / "findings.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    return read(folder / case / "anomaly_map.tiff").voxels, row


@pytest.mark.parametrize("way", WAYS)
def test_threads_instructions_and_processes_change_no_finding_and_no_bit_of_the_noise(
    way, detected
):
    (usual, noise), (found, other_noise) = detected("one thread here"), detected(way)
    for (one, first), (other, second), share in zip(usual, found, (ONE_STEP, WALK), strict=True):
        assert np.abs(one - other).max() <= share * np.ptp(one)
        assert float(first["score"]) == pytest.approx(float(second["score"]), rel=share)
        assert float(first["score_sd"] or 0) == pytest.approx(
            float(second["score_sd"] or 0), rel=0.01
        )
        assert first["n_regions"] == second["n_regions"]
    assert noise == other_noise


def test_the_numbers_are_those_of_torch():
    for count in (1, 15, 16, 17, 1000):
        like, key = torch.zeros(1, count), keys([0])
        draw = Draw(3, key)
        exact = torch.randn(count, generator=draw._generators()[0])
        torch.testing.assert_close(Draw(3, key).noise(like)[0], exact, atol=4e-6, rtol=0)


def test_a_slice_as_png_tiff_and_nifti_says_the_same(tmp_path):
    example = sorted((models.examples("brain-t1") / "test" / "bad").glob("*.png"))[0]
    image = np.array(Image.open(example))
    Image.fromarray(image).save(tmp_path / "a.tiff")
    nifti(
        tmp_path / "a.nii.gz",
        image[None].astype(np.float32),
        np.array([[0, 0, -1.0, 90], [0, -1, 0, 90], [1, 0, 0, 0], [0, 0, 0, 1]]),
    )
    detect = Detector(Run.open("brain-t1"), device="cpu", precision="fp32")
    found = [detect(path) for path in (example, tmp_path / "a.tiff", tmp_path / "a.nii.gz")]
    for other in found[1:]:
        assert np.abs(other.map - found[0].map).max() <= ONE_STEP * np.ptp(found[0].map)
        assert other.score == pytest.approx(found[0].score, rel=ONE_STEP)


def test_bf16_differs_from_float32_by_at_most_a_fiftieth_of_the_range(tiny_run):
    if not computes_bf16(torch.device("cpu")):
        pytest.skip("this processor does not compute in bf16")
    scan = Scan.from_array(picture(np.random.default_rng(5), bright=True)[0])
    exact, fast = (
        Detector(Run.open(tiny_run), device="cpu", precision=p)(scan) for p in ("fp32", "bf16")
    )
    assert np.abs(exact.map - fast.map).max() <= 2e-2 * 2  # the residual of images in [-1, 1]
