"""Reading: megabytes of voxels a second from each kind of file, beside reading the bytes alone.

python benchmarks/speed/readers.py [--planes 40] [--side 512] [--out FILE]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from paired import Report, arguments, paired
from PIL import Image

from pseudohealthy import io
from pseudohealthy.anomalies.phantoms import dicom_series, head, nifti


def raw(path: Path) -> None:
    """Every byte of a file or of the files of a folder."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            file.read_bytes()


def main() -> None:
    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--planes", type=int, default=40)
        parser.add_argument("--side", type=int, default=512)

    given = arguments(__doc__, more=more)
    report = Report("readers", given.out)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        volume, _, affine = head(
            np.random.default_rng(0), shape=(given.planes, given.side, given.side)
        )
        dicom_series(folder / "dicom", volume, spacing=(5.0, 0.45, 0.45))
        shutil.make_archive(str(folder / "zipped"), "zip", folder / "dicom")
        nifti(folder / "head.nii", volume.astype(np.int16), affine)
        nifti(folder / "head.nii.gz", volume.astype(np.int16), affine)
        (folder / "png").mkdir()
        for index, plane in enumerate(volume):
            grey = np.clip((plane + 20) * 2.5, 0, 255).astype(np.uint8)
            Image.fromarray(grey).save(folder / "png" / f"{index:03}.png")
        readers: dict[str, tuple[Path, Callable[[], object]]] = {
            "DICOM series": (folder / "dicom", partial(io.read, folder / "dicom")),
            "DICOM series in a zip": (
                folder / "zipped.zip",
                partial(io.read, folder / "zipped.zip"),
            ),
            "NIfTI": (folder / "head.nii", partial(io.read, folder / "head.nii")),
            "NIfTI, compressed": (folder / "head.nii.gz", partial(io.read, folder / "head.nii.gz")),
            "PNG slices": (folder / "png", partial(io.read_image, "png/*.png", folder)),
        }
        for what, (path, read) in readers.items():
            times, foreign = paired({"own": read, "bytes": partial(raw, path)}, 3)
            report.add(
                f"{what}, {given.side} x {given.side} x {given.planes}",
                volume.nbytes / 2e6 / times["own"],
                "MB/s",
                foreign,
                seconds=times["own"],
                bytes_alone=times["bytes"],
            )


if __name__ == "__main__":
    main()
