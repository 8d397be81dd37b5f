"""``python tests/reliability/mutants.py [NAME ...]``: one-line mistakes put into a copy of src,
each of which a test must see.

Prints caught or SURVIVED for each and ends with ``caught N/M``; exit 1 when one survives, or when a
named test fails without any mutation (then "caught" would mean nothing).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """what: the mistake; file: below src/pseudohealthy; old occurs exactly once and becomes new;
    tests: must fail."""

    what: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = {
    "sampler-sign": Mutant(
        "the noise estimate of a clipped step has the wrong sign",
        "diffusion/sampler.py",
        "noise = (x - a * clean) / s",
        "noise = (x + a * clean) / s",
        "tests/diffusion/test_sampler.py",
    ),
    "last-step-noise": Mutant(
        "noise is added on the step to level 0, too",
        "diffusion/sampler.py",
        "if not 0 < then < now:",
        "if not 0 <= then < now:",
        "tests/diffusion/test_sampler.py",
    ),
    "level-off-by-one": Mutant(
        "published steps count from 0, levels from 1",
        "diffusion/schedule.py",
        "return published_index + 1",
        "return published_index",
        "tests/diffusion/test_schedule.py",
    ),
    "threshold-split": Mutant(
        "the threshold is taken from training cases",
        "training/threshold.py",
        'rows = store.select("val", HEALTHY)',
        'rows = store.select("train", HEALTHY)',
        "tests/training/test_loop.py::test_the_threshold_is_a_quantile_of_healthy_patients_and_says_so",
    ),
    "patient-split": Mutant(
        "leaks between splits are looked for by image instead of by patient",
        "data/checks.py",
        "splits_of[case.patient_id].add(case.split)",
        "splits_of[case.case_id].add(case.split)",
        "tests/data/test_checks.py",
    ),
    "map-sign": Mutant(
        "twin less image instead of image less twin",
        "maps/anomaly_map.py",
        "return smooth(images.float() - healthy.float(), self.smooth)",
        "return smooth(healthy.float() - images.float(), self.smooth)",
        "tests/maps/test_anomaly_map.py",
    ),
    "axis-order": Mutant(
        "rows are resampled with the matrix of the columns",
        "preprocessing/placement.py",
        "return vertical[:, rows] @ inner @ horizontal[:, columns].T",
        "return horizontal[:, rows] @ inner @ vertical[:, columns].T",
        "tests/preprocessing/test_canvas.py",
    ),
    "dice-empty": Mutant(
        "Dice of an empty reference counts as 0",
        "metrics/curves.py",
        "        return None\n    return 2 * np",
        "        return 0.0\n    return 2 * np",
        "tests/metrics/test_curves.py",
    ),
    "auroc-ties": Mutant(
        "ties count as lost instead of half",
        "metrics/curves.py",
        "above = np.dot(passed, self.fp_above) + np.dot(passed, self.fp)",
        "above = 2 * np.dot(passed, self.fp)",
        "tests/metrics/test_curves.py",
    ),
    "ema-swapped": Mutant(
        "the average keeps what it should forget",
        "training/trainer.py",
        "weight = 1 - self.budget.ema_at(self.step)",
        "weight = self.budget.ema_at(self.step)",
        "tests/training/test_loop.py::test_the_average_follows_the_weights_by_the_plans_decay",
    ),
    "no-rename": Mutant(
        "a file is copied over the old one instead of renamed",
        "io/atomic.py",
        "os.replace(tmp, path)",
        "path.write_bytes(tmp.read_bytes())",
        "tests/reliability/test_killed_writes.py",
    ),
    "no-fsync": Mutant(
        "a file is renamed before it is on the disk",
        "io/atomic.py",
        "os.fsync(file.fileno())",
        "pass",
        "tests/reliability/test_killed_writes.py",
    ),
    "score-above": Mutant(
        "a voxel at the threshold counts as anomalous",
        "detection/finding.py",
        "return self.map > self.threshold",
        "return self.map >= self.threshold",
        "tests/detection/test_finding.py",
    ),
    "domain-limit": Mutant(
        "a case is out of domain only below the limit",
        "detection/domain.py",
        "return self.p <= self.limit",
        "return self.p < self.limit",
        "tests/detection/test_domain.py",
    ),
    "domain-margin": Mutant(
        "the coarse check has ten times its margin",
        "detection/detector.py",
        "margin = 0.1 * (high - low) + 0.01",
        "margin = 1.0 * (high - low) + 0.01",
        "tests/detection/test_detector.py",
    ),
    "worst-plane": Mutant(
        "a method's own score of a volume is that of its worst plane",
        "restorers/apply.py",
        "return float(own_scores[case.counted].mean())",
        "return float(own_scores[case.counted].max())",
        "tests/restorers/test_readings.py",
    ),
    "empty-case": Mutant(
        "a method is given the no planes of a case that shows nothing",
        "restorers/apply.py",
        "if len(occupied) else ()",
        "or ()",
        "tests/restorers/test_battery_cases.py::test_empty_planes_stay_what_they_are_and_a_plane_alone_is_what_it_is_in_its_volume",
    ),
    "spread-channels": Mutant(
        "the spread of several channels is too large by the root of their number",
        "restorers/base.py",
        "self.inside + within.sum() * values.shape[-3]",
        "self.inside + within.sum()",
        "tests/restorers/test_readings.py",
    ),
    "thinning": Mutant(
        "only the first values of a map reach the threshold",
        "training/threshold.py",
        "maps[inside].numpy()[::share]",
        "maps[inside].numpy()[: len(maps)]",
        "tests/training/test_thinning.py",
    ),
    "latent-processes": Mutant(
        "statistics of codes are summed over processes, not averaged",
        "restorers/latent.py",
        "moments /= dist.get_world_size()",
        "moments /= 1",
        "tests/restorers/test_latent.py",
    ),
    "cuda-attention": Mutant(
        "on CUDA keys and queries change places",
        "networks/blocks.py",
        "out = (F.scaled_dot_product_attention if qkv.is_cuda else by_rows)(q, k, v)",
        "out = F.scaled_dot_product_attention(k, q, v) if qkv.is_cuda else by_rows(q, k, v)",
        "tests/networks/test_unet.py",
    ),
    "cuda-gaussian": Mutant(
        "on CUDA the filter runs twice along the columns",
        "maps/filters.py",
        "kernel.view(1, 1, 1, -1) if axis == -1 else",
        "kernel.view(1, 1, -1, 1) if axis == -1 else",
        "tests/maps/test_anomaly_map.py",
    ),
    "hash-unchecked": Mutant(
        "a changed output passes its hash",
        "workflows/verify_outputs.py",
        "if hashing.sha256([path]) != digest:",
        "if not digest:",
        "tests/workflows/test_verify.py",
    ),
}


def passes(source: Path, tests: list[str]) -> bool:
    """Whether the tests pass on the package below `source`."""
    where = f"import pseudohealthy; assert pseudohealthy.__file__.startswith({str(source)!r})"
    line = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    variables = os.environ | {
        "PYTHONPATH": str(source),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    subprocess.run([sys.executable, "-c", where], env=variables, cwd=ROOT, check=True)
    return (
        subprocess.run(
            [sys.executable, *line], env=variables, cwd=ROOT, capture_output=True
        ).returncode
        == 0
    )


def main(names: list[str]) -> int:
    chosen = {name: MUTANTS[name] for name in names or MUTANTS}
    caught = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        source = Path(folder) / "src"
        shutil.copytree(
            ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
        if not passes(source, sorted({mutant.tests for mutant in chosen.values()})):
            print("the tests fail without a mutation")
            return 1
        for name, mutant in chosen.items():
            path, begun = source / "pseudohealthy" / mutant.file, time.monotonic()
            text = path.read_text(encoding="utf-8")
            assert text.count(mutant.old) == 1, (
                f"{name}: the old text occurs {text.count(mutant.old)} times"
            )
            path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
            survived = passes(source, [mutant.tests])
            path.write_text(text, encoding="utf-8")
            caught += not survived
            print(
                f"{name:17} {'SURVIVED' if survived else 'caught  '}"
                f" {time.monotonic() - begun:5.1f} s  {mutant.what}",
                flush=True,
            )
    print(f"caught {caught}/{len(chosen)}")
    return int(caught < len(chosen))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
