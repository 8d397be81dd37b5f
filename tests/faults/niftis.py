"""N: NIfTI files that are damaged, lie, or say less than they should."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from faults.material import cut, edited, stripped, volume
from faults.scoring import Done, Trial, fails, row, works
from faults.stage import Stage, only, rows_of
from pseudohealthy.anomalies.phantoms import head, nifti


def alone(stage: Stage, path: Path, code: str, *words: str, exit: int = 3) -> Trial:
    """`detect` of a bad file: refused by this code, and nothing of it written."""
    out = stage.out()
    done = stage.detect(path, out=out)
    left = {p.name for p in out.iterdir()} if out.exists() else set()
    row = only(done) or {"status": "failed", "score": None}
    return fails(
        done,
        code,
        *words,
        exit=exit,
        **{
            "no result of it": not left - {"findings.csv", "findings.json", "report.html"},
            "its row says failed": row["status"] == "failed" and row["score"] is None,
        },
    )


def beside(stage: Stage, path: Path, code: str) -> Trial:
    """The same beside a sound file: that one is written, exit 4."""
    good = volume(stage.folder / "good.nii.gz", seed=9)
    done = stage.detect(good, path)
    found = rows_of(done)
    return fails(
        done,
        code,
        exit=4,
        **{
            "a row for each": len(found) == 2,
            "the sound one is written": found.get("good", {}).get("status") in ("ok", "warn"),
        },
    )


def array(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2, 5, 1]) if affine is None else affine), path)
    return path


def stored(stage: Stage, path: Path, *words: str) -> tuple[Done, nib.Nifti1Image | None]:
    """`detect` with volumes, and the map it wrote."""
    out = stage.out()
    done = stage.detect(path, out=out, kinds=("volumes", "json"))
    made = list(out.glob("*/anomaly_map.nii.gz"))
    return done, nib.load(made[0]) if made else None  # type: ignore[return-value]


@row("N1", ".nii cut in half", "failed TRUNCATED, exit 4 (3 if alone)")
def n1(stage: Stage) -> Iterator[Trial]:
    path = cut(volume(stage.folder / "bad.nii"))
    yield alone(stage, path, "TRUNCATED")
    yield beside(stage, path, "TRUNCATED")


@row("N2", ".nii.gz cut in half", "failed TRUNCATED, exit 4 (3 if alone)")
def n2(stage: Stage) -> Iterator[Trial]:
    path = cut(volume(stage.folder / "bad.nii.gz"))
    yield alone(stage, path, "TRUNCATED")
    yield beside(stage, path, "TRUNCATED")


@row("N3", "0-byte file", "failed EMPTY_FILE")
def n3(stage: Stage) -> Iterator[Trial]:
    for name in ("a.nii", "b.nii.gz"):
        (stage.folder / name).touch()
        yield alone(stage, stage.folder / name, "EMPTY_FILE")


@row("N4", "HTML page or git-LFS pointer named .nii.gz", "failed NOT_NIFTI, says which")
def n4(stage: Stage) -> Iterator[Trial]:
    page, pointer = stage.folder / "page.nii.gz", stage.folder / "pointer.nii.gz"
    page.write_text("<!DOCTYPE html><html><body>404 not found</body></html>")
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    yield alone(stage, page, "NOT_NIFTI", "HTML")
    yield alone(stage, pointer, "NOT_NIFTI", "git lfs pull")


@row("N5", "plain .nii named .nii.gz", "read by content, warned")
def n5(stage: Stage) -> Iterator[Trial]:
    plain = volume(stage.folder / "a.nii")
    (stage.folder / "b.nii.gz").write_bytes(plain.read_bytes())
    right = only(stage.detect(plain))
    done = stage.detect(stage.folder / "b.nii.gz")
    yield works(done, "SUFFIX", **{"same score": only(done).get("score") == right["score"]})


@row(
    "N6",
    "NaN or Inf voxels: a few; more than 1 %",
    "replaced, warn NONFINITE n=...; failed NONFINITE",
)
def n6(stage: Stage) -> Iterator[Trial]:
    def few(values: np.ndarray) -> np.ndarray:
        values[0, 0, :2], values[1, 0, 0] = np.nan, np.inf
        return values

    def many(values: np.ndarray) -> np.ndarray:
        values[:, :3] = np.nan
        return values

    out = stage.out()
    done = stage.detect(
        volume(stage.folder / "few.nii.gz", few), out=out, kinds=("volumes", "json")
    )
    written = [np.isfinite(nib.load(p).get_fdata()).all() for p in out.glob("few/*.nii.gz")]  # type: ignore[attr-defined]
    yield works(done, "NONFINITE n=3", **{"outputs finite": len(written) == 3 and all(written)})
    yield alone(stage, volume(stage.folder / "many.nii.gz", many), "NONFINITE")


@row("N7", "constant or all-zero image", "failed CONSTANT_IMAGE")
def n7(stage: Stage) -> Iterator[Trial]:
    for value in (0, 7):
        path = volume(
            stage.folder / f"flat-{value}.nii.gz", lambda v, value=value: np.full_like(v, value)
        )
        yield alone(stage, path, "CONSTANT_IMAGE")


@row(
    "N8",
    "a real 4-D series",
    "failed IS_4D, says how to choose a volume; that choice works",
    adapted="the volume is named as FILE#k, as items of other files are, not with --volume k",
)
def n8(stage: Stage) -> Iterator[Trial]:
    values = np.random.default_rng(0).normal(30, 9, (24, 24, 4, 3)).astype(np.float32)
    path = array(stage.folder / "four.nii.gz", values)
    yield alone(stage, path, "IS_4D", "#0")
    done = stage.detect(f"{path}#1")
    single = stage.detect(array(stage.folder / "one.nii.gz", values[..., 1]))
    yield works(
        done,
        **{
            "as the volume alone": bool(only(done)) and only(done)["score"] == only(single)["score"]
        },
    )


@row("N9", "4-D with last axis 1", "accepted; the output keeps the 4-D header")
def n9(stage: Stage) -> Iterator[Trial]:
    values = nib.load(volume(stage.folder / "a.nii")).get_fdata(dtype=np.float32)[..., None]  # type: ignore[attr-defined]
    done, made = stored(stage, array(stage.folder / "b.nii.gz", values))
    yield works(done, **{"output is 4-D": made is not None and made.shape == values.shape})


@row(
    "N10",
    "2-D NIfTI",
    "restored as one plane, output on its 2-D grid",
    adapted="'failed NEEDS_3D' where a model needs volumes: every method here works plane by plane",
)
def n10(stage: Stage) -> Iterator[Trial]:
    values, _, _ = head(np.random.default_rng(0), shape=(4, 24, 24))
    done, made = stored(stage, array(stage.folder / "flat.nii.gz", values[2].T.copy()))
    yield works(done, **{"output on the input's grid": made is not None and made.shape == (24, 24)})


@row("N11", "complex or RGB voxels", "failed DTYPE")
def n11(stage: Stage) -> Iterator[Trial]:
    values = np.random.default_rng(0).random((12, 12, 4))
    yield alone(
        stage, array(stage.folder / "complex.nii.gz", (values + 1j).astype(np.complex64)), "DTYPE"
    )
    rgb = np.zeros((12, 12, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    yield alone(stage, array(stage.folder / "rgb.nii.gz", rgb), "DTYPE")


@row("N12", "pixdim 0", "failed BAD_SPACING")
def n12(stage: Stage) -> Iterator[Trial]:
    yield alone(
        stage, edited(stage.folder / "a.nii", pixdim=[1, 0, 2, 5, 0, 0, 0, 0]), "BAD_SPACING"
    )


@row("N13", "NaN in the affine", "failed BAD_AFFINE")
def n13(stage: Stage) -> Iterator[Trial]:
    yield alone(stage, edited(stage.folder / "a.nii", srow_x=[np.nan, 0, 0, 0]), "BAD_AFFINE")


@row("N14", "sform unlike qform", "the sform is used, warn FORMS_DISAGREE")
def n14(stage: Stage) -> Iterator[Trial]:
    path = edited(
        stage.folder / "a.nii", srow_x=[-2, 0, 0, 9], srow_y=[0, -2, 0, 9], srow_z=[0, 0, 2, 9]
    )
    done = stage.inspect(path)
    yield works(
        done,
        "FORMS_DISAGREE",
        **{"spacing of the sform": only(done).get("spacing_mm") == [2.0, 2.0, 2.0]},
    )
    done, made = stored(stage, path)
    kept = made is not None and np.allclose(made.affine[:3, :3], np.diag([-2, -2, 2]))
    yield works(done, "FORMS_DISAGREE", **{"the output keeps it": kept})


@row("N15", "neither sform nor qform", "warn ORIENTATION_UNKNOWN, header copied")
def n15(stage: Stage) -> Iterator[Trial]:
    done, made = stored(stage, edited(stage.folder / "a.nii", sform_code=0, qform_code=0))
    codes = [] if made is None else [int(made.header[k]) for k in ("sform_code", "qform_code")]
    yield works(done, "ORIENTATION_UNKNOWN", **{"codes stay 0": codes == [0, 0]})


@row("N16", "sheared affine", "processed, same header, warn NOT_ORTHONORMAL naming ITK viewers")
def n16(stage: Stage) -> Iterator[Trial]:
    path = edited(stage.folder / "a.nii", srow_y=[0, -6.6, 2.0, 9])
    done, made = stored(stage, path)
    same = made is not None and np.allclose(made.affine, nib.load(path).affine)  # type: ignore[attr-defined]
    yield works(done, "NOT_ORTHONORMAL", "ITK", **{"same affine": same})


@row("N17", "header of 30000^3 voxels on 20 kB", "failed TOO_LARGE, exit 7, under 1 s and 200 MB")
def n17(stage: Stage) -> Iterator[Trial]:
    path = edited(stage.folder / "a.nii", dim=[3, 30000, 30000, 30000, 1, 1, 1, 1])
    trial = alone(stage, path, "TOO_LARGE", exit=7)
    trial.exact = {"under 1 s": trial.done.seconds < 1, "under 200 MB": trial.done.grown < 200}
    yield trial


@row("N18", "1.7 MB of gzip that inflate to 1.8 GB", "refused before inflating, exit 7")
def n18(stage: Stage) -> Iterator[Trial]:
    header = nib.Nifti1Header()
    header.set_data_shape((1000, 1000, 450))
    header.set_data_dtype(np.float32)
    header["magic"], header["vox_offset"] = b"n+1", 352
    path = stage.folder / "bomb.nii.gz"
    block = gzip.compress(bytes(2**24), 9)  # members of a gzip file may simply follow one another
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4)) + 108 * block)
    trial = alone(stage, path, "TOO_LARGE", exit=7)
    trial.exact = {"under 200 MB": trial.done.grown < 200}
    yield trial


@row("N19", "a dimension of 0 or below", "failed BAD_DIMS")
def n19(stage: Stage) -> Iterator[Trial]:
    for number, size in enumerate((0, -5)):
        path = edited(stage.folder / f"{number}.nii", dim=[3, size, 24, 4, 1, 1, 1, 1])
        yield alone(stage, path, "BAD_DIMS")


@row("N20", "scl_slope 0 with scl_inter 5; slope NaN", "unscaled, warned")
def n20(stage: Stage) -> Iterator[Trial]:
    right = only(stage.inspect(volume(stage.folder / "right.nii")))["range"]
    for name, slope in (("zero", 0.0), ("nan", np.nan)):
        done = stage.inspect(edited(stage.folder / f"{name}.nii", scl_slope=slope, scl_inter=5.0))
        yield works(done, "SCALING", **{"values unscaled": only(done).get("range") == right})


@row(
    "N21",
    "one scan in all 48 axis orders and flips",
    "equal maps in the world (1e-5), each with its own header",
    quick=False,
)
def n21(stage: Stage) -> Iterator[Trial]:
    first = nib.load(volume(stage.folder / "first.nii"))  # type: ignore[attr-defined]
    data, affine = first.get_fdata(dtype=np.float32), first.affine
    (stage.folder / "in").mkdir()
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            change = np.array([[axis, sign] for axis, sign in zip(order, signs, strict=True)])
            at = affine @ nib.orientations.inv_ornt_aff(change, data.shape)
            name = "".join("xyz"[a] + "+-"[s < 0] for a, s in zip(order, signs, strict=True))
            array(stage.folder / "in" / f"{name}.nii", nib.apply_orientation(data, change), at)
    out = stage.out()
    done = stage.detect(stage.folder / "in", out=out, kinds=("volumes",))
    maps = [nib.as_closest_canonical(nib.load(p)) for p in sorted(out.glob("*/anomaly_map.nii.gz"))]  # type: ignore[attr-defined]
    apart = max(
        (float(np.abs(m.get_fdata() - maps[0].get_fdata()).max()) for m in maps), default=np.inf
    )
    where = all(np.allclose(m.affine, maps[0].affine, atol=1e-4) for m in maps)
    varied = bool(maps) and float(np.ptp(maps[0].get_fdata())) > 0
    yield works(
        done,
        **{
            "48 maps": len(maps) == 48,
            "equal": apart <= 1e-5,
            "one place": where,
            "not flat": varied,
        },
    )


@row("N22", "1x1x1, 3x3x1 and 8x8x8 voxels", "failed TOO_SMALL")
def n22(stage: Stage) -> Iterator[Trial]:
    for shape in ((3, 3, 1), (8, 8, 8), (1, 1, 1)):
        values = np.random.default_rng(0).random(shape).astype(np.float32)
        yield alone(stage, array(stage.folder / f"{shape[0]}.nii.gz", values), "TOO_SMALL")


@row("N25", "contrast or skull unlike the training scans", "warn OOD_INTENSITY or OOD_FOREGROUND")
def n25(stage: Stage) -> Iterator[Trial]:
    values, _, affine = head(np.random.default_rng(4), shape=(6, 32, 32), modality="MR")
    brain = stripped(values)
    other_contrast = np.where(brain > 0, 700 - brain, 0)
    known = only(stage.detect(nifti(stage.folder / "same.nii.gz", brain, affine), run=stage.mr))
    for name, other in (("with-skull", values), ("t2", other_contrast)):
        done = stage.detect(
            nifti(stage.folder / f"{name}.nii.gz", other.astype(np.float32), affine), run=stage.mr
        )
        yield works(
            done,
            "OOD_",
            **{"the usual contrast is not warned of": "OOD" not in known.get("warnings", "OOD")},
        )


@row(
    "N26",
    "xyzt_units of metres or micrometres over mm; voxels of 2 m",
    "taken as mm, warn UNITS; no volume in ml",
)
def n26(stage: Stage) -> Iterator[Trial]:
    for unit in (1, 3):
        path = edited(stage.folder / f"{unit}.nii", xyzt_units=unit)
        done = stage.detect(path)
        right = only(stage.detect(volume(stage.folder / f"right-{unit}.nii")))["volume_ml_above"]
        yield works(
            done, "UNITS", **{"the volume in mm": only(done).get("volume_ml_above") == right}
        )
    values = nib.load(volume(stage.folder / "a.nii")).get_fdata(dtype=np.float32)  # type: ignore[attr-defined]
    done = stage.detect(
        array(stage.folder / "two-metres.nii.gz", values, np.diag([2000.0, 2000, 5000, 1]))
    )
    yield works(done, "UNITS", **{"no volume": only(done).get("volume_ml_above", 0) is None})


@row("N27", "a quaternion a little longer than 1", "read as the standard's reference code reads it")
def n27(stage: Stage) -> Iterator[Trial]:
    turned = {"sform_code": 0, "qform_code": 1, "quatern_b": 0, "quatern_c": 0}
    right = only(stage.detect(edited(stage.folder / "right.nii", quatern_d=1, **turned)))
    done = stage.detect(edited(stage.folder / "a.nii", quatern_d=1.00002, **turned))
    yield works(
        done, **{"same score": bool(right) and only(done).get("score") == right.get("score")}
    )
