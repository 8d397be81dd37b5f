"""An archive of N small inputs in one run, killed twice and resumed: nothing lost, nothing done
twice, memory flat.

    python benchmarks/archive_scale.py 1000 [--kinds json panel] [--kills 2] [--run RUN] [--json]
    [-- --engine ray --workers 2]

NIfTI volumes, PNG pictures and DICOM series of 24 x 24 pixels, a few contents under distinct names,
through `pseudohealthy detect` as a process of its own with a tiny diffusion model (or RUN). It is
ended with SIGKILL when a third and two thirds of the cases are finished and taken up again with
--resume. Checked: one row per input, copies of one content score alike, files of finished cases
untouched by the resumption, no temporary file left. Measured: memory of the process (and of its
children, once a second) as MB per 1,000 cases after the first 100, cases per second, CPU time of
the start (with the look at finished cases), of a case and of the end (tables, report), bytes of
what is written. Arguments after -- go to detect. Exit 1 where a check fails.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pydicom

CONTENTS = 4  # distinct contents of each kind
RECIPE = """name = "tiny"
[canvas]
size = 16
normalise = "percentile"
foreground = "all"
[restorer]
name = "ddpm"
levels = 50
depths = [15]
steps = 3
draws = 2
network = { width = 8, multipliers = [1, 2], blocks = 1, scale_shift = true, groups = 4 }
[training]
steps = 12
batch = 4
precision = "fp32"
"""


def make_inputs(folder: Path, count: int) -> dict[str, str]:
    """`count` inputs below `folder`, a third each NIfTI, PNG and DICOM (series of two slices): case
    id -> content."""
    from PIL import Image

    from pseudohealthy.anomalies.phantoms import dicom_series, head, nifti
    from pseudohealthy.io.names import series_id

    made = folder / ".contents"
    originals: dict[tuple[str, int], list[Path]] = {}
    for number in range(CONTENTS):
        volume, _, affine = head(
            np.random.default_rng(number), shape=(4, 24, 24), lesion=0.4 if number % 2 else None
        )
        volume = volume[1:3]
        (made / str(number)).mkdir(parents=True)
        originals["nifti", number] = [nifti(made / f"{number}.nii.gz", volume, affine)]
        originals["dicom", number] = dicom_series(made / str(number), volume, seed=number)
        grey = np.clip((volume[0] + 20) * 2, 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(made / f"{number}.png")
        originals["png", number] = [made / f"{number}.png"]
    contents = {}
    for index in range(count):
        kind, number = ("nifti", "png", "dicom")[index % 3], (index // 3) % CONTENTS
        name = f"{kind}-{index:06d}"
        place = folder / f"{index // 1000:03d}" / name
        (place if kind == "dicom" else place.parent).mkdir(parents=True, exist_ok=True)
        for path in originals[kind, number]:
            if kind == "dicom":  # a series of its own: another UID of the same length
                uid = pydicom.dcmread(path, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID
                own = f"{uid[:-7]}1{index:06d}"
                (place / path.name).write_bytes(
                    path.read_bytes().replace(uid.encode(), own.encode())
                )
                name = series_id(own)
            else:
                shutil.copyfile(path, f"{place}{'.png' if kind == 'png' else '.nii.gz'}")
        contents[name] = f"{kind} {number}"
    return contents


def make_run(folder: Path) -> Path:
    """A tiny diffusion model, trained for a moment on blobs."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for place in ("train/good", "val/good"):
        (folder / "data" / place).mkdir(parents=True)
        for number in range(8):
            grey = rng.uniform(0, 200, (24, 24)).astype(np.uint8)
            Image.fromarray(grey).save(folder / "data" / place / f"{place[:3]}-{number}.png")
    (folder / "tiny.toml").write_text(RECIPE)
    line = [
        "train",
        folder / "tiny.toml",
        "--data",
        folder / "data",
        "--out",
        folder / "run",
        "--device",
        "cpu",
        "--quiet",
    ]
    subprocess.run(
        [sys.executable, "-m", "pseudohealthy", *map(str, line)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder / "run"


def used(process: psutil.Process) -> tuple[float, float]:
    """(resident MB, CPU seconds) of a process and its children."""
    memory, seconds = 0, 0.0
    for one in [process, *process.children(recursive=True)]:
        try:
            memory += one.memory_info().rss
            seconds += sum(one.cpu_times()[:2])
        except psutil.Error:
            continue
    return memory / 1e6, seconds


def cases_in(out: Path) -> list[str]:
    """Cases that are begun."""
    if not out.is_dir():
        return []
    with os.scandir(out) as entries:
        return [entry.name for entry in entries if entry.is_dir()]


def finished(out: Path) -> dict[Path, tuple[int, str]]:
    """Files of the finished cases, with what would change if they were written again."""
    found = {}
    for name in cases_in(out):
        if (out / name / "case.json").is_file():
            for path in (out / name).iterdir():
                if not path.name.startswith(".tmp"):
                    digest = hashlib.sha256(path.read_bytes()).hexdigest()
                    found[path.relative_to(out)] = (path.stat().st_mtime_ns, digest)
    return found


def follow(line: list[str], out: Path, kill_at: int | None) -> dict[str, Any]:
    """One `detect`, killed when `kill_at` cases are there: samples (seconds, cases, MB, CPU
    seconds)."""
    before = len(cases_in(out))
    with tempfile.TemporaryFile() as said:
        begun = time.monotonic()
        process = subprocess.Popen(line, stdout=said, stderr=said, start_new_session=True)
        watched = psutil.Process(process.pid)
        samples: list[tuple[float, int, float, float]] = []
        while process.poll() is None:
            cases = len(cases_in(out))
            try:
                samples.append((time.monotonic() - begun, cases, *used(watched)))
            except psutil.Error:
                break
            if kill_at is not None and cases >= kill_at:
                os.killpg(process.pid, signal.SIGKILL)
                break
            time.sleep(1.0 if kill_at is None or kill_at - cases > 200 else 0.05)
        code = process.wait()
        said.seek(0)
        text = said.read().decode(errors="replace")
    fresh = [s for s in samples if s[1] > before] or [(0.0, before, 0.0, 0.0)]
    first, last = fresh[0], next(s for s in fresh if s[1] == fresh[-1][1])
    return {
        "exit": code,
        "said": text[-2000:],
        "samples": samples,
        "before": before,
        "cases": len(cases_in(out)) - before,
        "seconds": time.monotonic() - begun,
        "first": first,
        "last": last,
        "cpu_s": samples[-1][3] if samples else 0.0,
        "peak_mb": max((s[2] for s in samples), default=0.0),
    }


def slope(samples: list[tuple[float, int, float, float]], before: int) -> float | None:
    """MB per 1,000 cases by least squares, from the 100th case of this process on; None for too few
    samples."""
    late = np.array([(cases, mb) for _, cases, mb, _ in samples if cases - before >= 100])
    if len(late) < 5 or np.ptp(late[:, 0]) < 100:
        return None
    return float(np.polyfit(late[:, 0] / 1000, late[:, 1], 1)[0])


def measure(
    count: int, folder: Path, kinds: list[str], kills: int, run: Path | None, more: list[str]
) -> dict[str, Any]:
    """Everything this benchmark says, with the failed checks under "wrong"."""
    contents = make_inputs(folder / "in", count)
    run = run or make_run(folder)
    out = folder / "out"
    line = [
        sys.executable,
        "-m",
        "pseudohealthy",
        "detect",
        str(run),
        str(folder / "in"),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--kinds",
        *kinds,
        *more,
    ]
    legs, wrong, kept = [], [], {}
    for leg in range(kills + 1):
        kill_at = None if leg == kills else count * (leg + 1) // (kills + 1)
        legs.append(follow([*line, "--resume"] if leg else line, out, kill_at))
        now = finished(out)
        again = [str(path) for path, state in kept.items() if now.get(path) != state]
        if again:
            wrong.append(
                f"{len(again)} files of finished cases changed or lost, such as {again[0]}"
            )
        kept = now
    if legs[-1]["exit"] != 0:
        wrong.append(f"exit {legs[-1]['exit']}: {legs[-1]['said']}")
    if any(leg["exit"] != -signal.SIGKILL for leg in legs[:-1]):
        wrong.append("it ended before it was killed: take more inputs")
    if (out / "findings.csv").is_file():
        wrong += check_rows(out, contents)
    left = [path.name for path in out.rglob(".tmp-*")]
    if left:
        wrong.append(f"{len(left)} temporary files are left")
    sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    tables = {
        name: (out / name).stat().st_size / 1e6
        for name in ("findings.csv", "findings.json", "report.html")
        if (out / name).is_file()
    }
    return {
        "inputs": count,
        "kinds": kinds,
        "wrong": wrong,
        "files": len(sizes),
        "written_mb": sum(sizes) / 1e6,
        "tables_mb": tables,
        "legs": [
            {k: v for k, v in leg.items() if k not in ("samples", "said")}
            | {"mb_per_1000": slope(leg["samples"], leg["before"])}
            for leg in legs
        ],
    }


def check_rows(out: Path, contents: dict[str, str]) -> list[str]:
    """What is wrong with findings.csv."""
    with open(out / "findings.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wrong = []
    if sorted(row["case_id"] for row in rows if row["status"] != "skipped") != sorted(contents):
        wrong.append(f"{len(rows)} rows for {len(contents)} inputs, or not one each")
    bad = [row for row in rows if row["status"] not in ("ok", "warn")]
    if bad:
        wrong.append(f"{len(bad)} rows are {bad[0]['status']}: {bad[0]['warnings']}")
    scores: dict[str, set[str]] = {}
    for row in rows:
        scores.setdefault(contents.get(row["case_id"], "?"), set()).add(
            f"{float(row['score'] or 'nan'):.4f}"
        )
    unlike = [content for content, found in scores.items() if len(found) > 1]
    if unlike:
        wrong.append(
            f"copies of {unlike[0]} have different scores: {sorted(scores[unlike[0]])[:4]}"
        )
    if sorted(cases_in(out)) != sorted(contents):
        wrong.append("folders of cases and inputs differ")
    return wrong


def main() -> int:
    arguments = sys.argv[1:]
    more = arguments[arguments.index("--") + 1 :] if "--" in arguments else []
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", type=int)
    parser.add_argument("--kinds", nargs="+", default=["json"])
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(
        arguments[: arguments.index("--")] if "--" in arguments else arguments
    )
    with tempfile.TemporaryDirectory(prefix="archive-scale-") as folder:
        found = measure(given.count, Path(folder), given.kinds, given.kills, given.run, more)
    if given.json:
        print(json.dumps(found))
        return int(bool(found["wrong"]))
    print(
        f"{found['inputs']:,} inputs, kinds {' '.join(found['kinds'])}, killed {given.kills} times,"
        f" {os.cpu_count()} CPU cores"
    )
    print(
        f"{'leg':>4} {'cases':>7} {'cases/s':>8} {'CPU ms/case':>12} {'start CPU s':>12}"
        f" {'end CPU s':>10} {'peak MB':>8} {'MB per 1,000 cases':>19}"
    )
    for number, leg in enumerate(found["legs"], 1):
        (begun, early, _, cpu), (ended, late, _, spent) = leg["first"], leg["last"]
        rate, each = "-", "-"
        if late > early:
            rate = f"{(late - early) / (ended - begun):.1f}"
            each = f"{1000 * (spent - cpu) / (late - early):.1f}"
        growth = "-" if leg["mb_per_1000"] is None else f"{leg['mb_per_1000']:+.2f}"
        end = f"{leg['cpu_s'] - spent:.1f}" if leg["exit"] == 0 else "killed"
        print(
            f"{number:4d} {leg['cases']:7,} {rate:>8} {each:>12} {cpu:12.1f} {end:>10}"
            f" {leg['peak_mb']:8.0f} {growth:>19}"
        )
    shown = ", ".join(f"{name} {size:.2f} MB" for name, size in found["tables_mb"].items())
    print(f"{found['files']:,} files, {found['written_mb']:.1f} MB; {shown}")
    print(
        "every input has its row, nothing lost, nothing done twice"
        if not found["wrong"]
        else "\n".join(found["wrong"])
    )
    return int(bool(found["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
