"""``python -m fuzz.drive [SECONDS]``: a coverage-guided fuzzer (atheris, which is libFuzzer) over
the readers.

Every target runs in its own process for its share of SECONDS, on a copy of its seeds, with the
package and the pure Python readers below it instrumented; half of the inputs are made by `mutate`,
which knows the formats' headers. What is no `Fault` of one clear line ends the process and is saved
into ``corpus/``, where ``test_readers.py`` replays it for good.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

TARGETS = ("nifti", "dicom", "png", "recipe", "manifest", "checkpoint")
CORPUS = Path(__file__).parent / "corpus"
ROOT = Path(__file__).resolve().parents[2]
# What a target imports only when it runs: imported early, so that it is instrumented.
MODULES = {
    "nifti": ("pseudohealthy.io.nifti",),
    "dicom": tuple(
        f"pseudohealthy.io.{name}"
        for name in (
            "dicom",
            "dicom_frames",
            "dicom_grid",
            "dicom_header",
            "dicom_parts",
            "pixels",
            "series",
        )
    ),
    "png": ("pseudohealthy.io.raster",),
    "checkpoint": ("pseudohealthy.runs.checkpoint",),
}
INSTRUMENTED = (
    "pseudohealthy",
    "pydicom.filereader",
    "pydicom.fileutil",
    "pydicom.values",
    "nibabel.nifti1",
    "PIL.PngImagePlugin",
    "tomllib",
    "csv",
)
START = 600  # seconds for imports and instrumentation on a busy machine
MEMORY = 4096  # MB


@dataclass
class Outcome:
    """What one target's process printed; crash: the file kept, if any."""

    target: str
    executions: int
    coverage: int
    features: int
    crash: Path | None
    log: str


def available() -> bool:
    return importlib.util.find_spec("atheris") is not None


def fuzz(target: str, seconds: int, corpus: Path = CORPUS) -> Outcome:
    """Fuzz one target in a process of its own."""
    from fuzz.seeds import seed

    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        seeds, found = Path(folder) / "seeds", Path(folder) / "found"
        seeds.mkdir(), found.mkdir()
        (seeds / "seed").write_bytes(seed(target))
        for path in corpus.glob(f"{target}/*"):
            shutil.copy(path, seeds)
        line = [
            sys.executable,
            "-m",
            "fuzz.drive",
            "--target",
            target,
            f"-max_total_time={seconds}",
            "-timeout=60",
            "-max_len=16384",
            "-print_final_stats=1",
            f"-rss_limit_mb={MEMORY}",
            f"-artifact_prefix={found}/",
            str(seeds),
        ]
        paths = [str(ROOT / "tests"), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        done = subprocess.run(
            line,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=START + 6 * seconds,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
        )
        log = done.stderr + done.stdout
        crash = None
        for path in sorted(found.iterdir()):
            crash = corpus / target / path.name[:20]
            crash.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, crash)
    if done.returncode and crash is None:
        raise RuntimeError(f"the fuzzer of {target} ended with {done.returncode}:\n{log[-2000:]}")
    return Outcome(
        target,
        *(
            _last(key, log)
            for key in (r"stat::number_of_executed_units:\s+(\d+)", r" cov: (\d+)", r" ft: (\d+)")
        ),
        crash,
        log,
    )


def _last(pattern: str, log: str) -> int:
    """The last number the fuzzer printed there; a crash ends it before its final statistics."""
    found = re.findall(pattern, log) or re.findall(r"^#(\d+)", log, re.M) * ("number" in pattern)
    return int(found[-1]) if found else 0


def inside(target: str, arguments: list[str]) -> None:
    """The fuzzed process itself."""
    import random

    import atheris

    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        from fuzz import mutate
        from fuzz.targets import attempt

        for module in MODULES.get(target, ()):
            importlib.import_module(module)
    folder = Path(tempfile.mkdtemp(prefix=f"{target}-", dir="."))

    def one(data: bytes) -> None:
        attempt(target, folder, bytes(data))

    def mutator(data: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.random() < 0.5:
            try:
                return mutate.broken(target, bytes(data), rng)[:most]
            except Exception:  # a header that is broken already cannot be edited by its fields
                pass
        return atheris.Mutate(data, most)

    import torch

    torch.set_num_threads(1)
    atheris.Setup([sys.argv[0], *arguments], one, custom_mutator=mutator)
    atheris.Fuzz()


def main(words: list[str]) -> int:
    if words[:1] == ["--target"]:
        inside(words[1], words[2:])
        return 0
    if not available():
        print("atheris is not installed: pip install 'pseudohealthy[fuzz]'", file=sys.stderr)
        return 2
    seconds = max(1, int(float(words[0]) if words else 60) // len(TARGETS))
    crashes = 0
    print(
        f"{'target':12}{'executions':>12}{'coverage':>10}{'features':>10}  crash ({seconds} s each)"
    )
    for target in TARGETS:
        found = fuzz(target, seconds)
        crashes += found.crash is not None
        print(
            f"{target:12}{found.executions:12}{found.coverage:10}{found.features:10} "
            f" {found.crash or 'none'}",
            flush=True,
        )
        if found.crash:
            print(re.sub(r"(?s).*?( === Uncaught.*?)\n==.*", r"\1", found.log)[:3000])
    print(f"crashes {crashes}")
    return int(crashes > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
