"""Are there wheels of every pinned package for machines that this one is not? A dry resolution by
pip; nothing is installed.

Run by `make resolve`; prints a line for each Python and system, with the packages that have no
wheel there. Exits 1 where a registry cannot be asked, or where one lacks.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11", "3.12", "3.13")
LINUX = [*(f"manylinux_2_{minor}" for minor in range(39, 4, -1)), "manylinux2014", "linux"]
SYSTEMS = {
    "x86-64 Linux": [f"{name}_x86_64" for name in LINUX],
    "aarch64 Linux": [f"{name}_aarch64" for name in LINUX],
    "arm64 macOS": ["macosx_14_0_arm64"],
}
PIN = re.compile(r"^([A-Za-z0-9_.\[\]-]+==\S+?)(?:\s*;[^\\]*)?\s*\\?$")
MISSING = re.compile(r"No matching distribution found for (\S+?)[\s(]", re.I)


def pins() -> list[str]:
    """name==version of every package of both files."""
    names = ("requirements.lock", "requirements-torch.txt")
    lines = [
        line for name in names for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
    ]
    return [match[1] for line in lines if (match := PIN.match(line.strip()))]


def asked(
    wanted: list[str], python: str, platforms: list[str], target: str
) -> subprocess.CompletedProcess[str]:
    """One dry resolution: wheels only, without what they depend on, which is pinned as well."""
    line = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--no-deps",
        "--ignore-installed",
        "--target",
        target,
    ]
    line += ["--only-binary=:all:", "--python-version", python, "--implementation", "cp", "--quiet"]
    line += [
        "--disable-pip-version-check",
        *(word for name in platforms for word in ("--platform", name)),
    ]
    return subprocess.run([*line, *wanted], capture_output=True, text=True)


def lacking(wanted: list[str], python: str, platforms: list[str]) -> list[str]:
    """Pins without a wheel there: pip names one at a time, which is then left out. RuntimeError
    when it says another thing."""
    found: list[str] = []
    with tempfile.TemporaryDirectory() as target:
        while True:
            left = [pin for pin in wanted if pin not in found]
            done = asked(left, python, platforms, target)
            if done.returncode == 0:
                return found
            match = MISSING.search(done.stderr + " ")
            pin = next((p for p in left if match and p.lower() == match[1].lower()), None)
            if pin is None:
                raise RuntimeError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
            found.append(pin)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="+", default=PYTHONS)
    parser.add_argument("--system", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    chosen, wanted, worst = parser.parse_args(), pins(), 0
    for system in chosen.system:
        for python in chosen.python:
            try:
                gone = lacking(wanted, python, SYSTEMS[system])
                said = f"without a wheel: {', '.join(gone)}" if gone else "all have a wheel"
            except RuntimeError as error:
                gone, said = ["?"], f"not resolved: {error}"
            worst |= bool(gone)
            print(f"Python {python}, {system}: {len(wanted)} packages, {said}", flush=True)
    return worst


if __name__ == "__main__":
    sys.exit(main())
