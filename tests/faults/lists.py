"""C: manifests, folders and published data sets with doubles, leaks, strange names and missing
files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from faults.material import png
from faults.scoring import Done, Trial, fails, row, works
from faults.stage import Stage, rows_of
from pseudohealthy.anomalies.phantoms import head, nifti
from pseudohealthy.datasets.chexpert import COLUMNS

HEADER = "case_id,patient_id,split,label,image,mask"


def listed(folder: Path, lines: Sequence[str], header: str = HEADER) -> Path:
    """A manifest over eight pictures p0..p7 beside it."""
    for number in range(8):
        png(folder / f"p{number}.png", 100 + number)
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def sound() -> list[str]:
    return [
        f"c{k},q{k},{'train' if k < 4 else 'val' if k < 6 else 'test'},0,p{k}.png,"
        for k in range(8)
    ]


def train(stage: Stage, data: Path, *options: str) -> tuple[Done, Path]:
    out = stage.out()
    words = (
        "train",
        stage.root / "tiny.toml",
        "--data",
        data,
        "--out",
        out,
        "--device",
        "cpu",
        "--steps",
        1,
        *options,
    )
    return stage.run(*words), out


def refused(stage: Stage, data: Path, code: str, *words: str, exit: int) -> Trial:
    done, out = train(stage, data)
    return fails(done, code, *words, exit=exit, **{"no run begun": not out.exists()})


@row("C1", "a listed path of /etc/passwd or ../..", "exit 8")
def c1(stage: Stage) -> Iterator[Trial]:
    for number, path in enumerate(
        ("/etc/passwd", "../../secret.png", "a/../../b.png", "C:\\\\secret.png")
    ):
        lines = [*sound()[:-1], f"c7,q7,test,0,{path},"]
        yield refused(stage, listed(stage.folder / str(number), lines), "PATH_ESCAPE", exit=8)


@row("C2", "byte order mark and ; as separator", "read")
def c2(stage: Stage) -> Iterator[Trial]:
    path = listed(stage.folder, [])
    path.write_text("\n".join([HEADER, *sound()]).replace(",", ";"), encoding="utf-8-sig")
    done, out = train(stage, path)
    yield works(done, **{"trained": (out / "best_model.safetensors").is_file()})


@row("C3", "listed files are missing", "all named (first 10 and a count), exit 3")
def c3(stage: Stage) -> Iterator[Trial]:
    lines = sound() + [f"m{k},m{k},train,0,gone{k}.png," for k in range(13)]
    yield refused(
        stage, listed(stage.folder, lines), "MISSING", "13 files", "gone9.png", "and 3 more", exit=3
    )


@row("C4", "the same id, file or content twice", "error DUPLICATE with a list; --dedupe")
def c4(stage: Stage) -> Iterator[Trial]:
    lines = sound()
    twice = {"id": [*lines, "c0,q9,train,0,p9.png,"], "file": [*lines, "c9,q9,train,0,p0.png,"]}
    twice["content"] = [*lines, "c9,q9,train,0,p9.png,"]
    for name, rows in twice.items():
        folder = stage.folder / name
        path = listed(folder, rows)
        (
            shutil.copy(folder / "p0.png", folder / "p9.png")
            if name == "content"
            else png(folder / "p9.png", 9)
        )
        yield refused(stage, path, "DUPLICATE", "c0", exit=2)
    done, _ = train(stage, stage.folder / "content" / "manifest.csv", "--dedupe")
    yield Trial(done, (0,), ("c9",))


@row(
    "C5",
    "a patient in train and test",
    "error LEAK, exit 2; --allow-leak is written into every result",
    quick=False,
)
def c5(stage: Stage) -> Iterator[Trial]:
    path = listed(stage.folder, [*sound()[:-1], "c7,q0,test,0,p7.png,"])
    yield refused(stage, path, "LEAK", "q0", exit=2)
    out = stage.out()
    data = listed(
        stage.folder / "again", ["c0,train-good-0,test,0,p0.png,", "c1,q1,test,1,p1.png,"]
    )
    words = ("evaluate", stage.tiny, "--data", data, "--out", out, "--device", "cpu")
    yield fails(stage.run(*words), "LEAK", exit=2)
    done = stage.run(*words, "--allow-leak")
    said = {
        name: (out / name).is_file() and "LEAK" in (out / name).read_text()
        for name in ("report.html", "metrics.json")
    }
    yield Trial(
        done,
        (0,),
        facts={"in report.html": said["report.html"]},
        exact={"in metrics.json": said["metrics.json"]},
    )


@row("C6", "CheXpert's blanks and uncertain labels", "unknown stays unknown")
def c6(stage: Stage) -> Iterator[Trial]:
    folder = stage.folder / "CheXpert-v1.0-small"
    states = {k: "1.0" if k % 2 else "" for k in range(1, 9)} | {3: "", 5: "-1.0"}  # of No Finding
    lines = [",".join(COLUMNS)]
    for number, state in states.items():
        place = f"CheXpert-v1.0-small/train/patient{number:05d}/study1/view1_frontal.jpg"
        png(stage.folder / place, number)
        row = {
            "Path": place,
            "Sex": "Female",
            "Age": "60",
            "Frontal/Lateral": "Frontal",
            "AP/PA": "AP",
            "No Finding": state,
        }
        row |= {"Pleural Effusion": "1.0"} if number % 2 == 0 else {}
        lines.append(",".join(row.get(column, "") for column in COLUMNS))
    for name in ("train.csv", "valid.csv"):
        (folder / name).write_text("\n".join(lines[:1] if name == "valid.csv" else lines) + "\n")
    out = stage.out()
    done = stage.run("prepare", "chexpert", folder, "--out", out)
    table = (out / "manifest.csv").read_text() if (out / "manifest.csv").is_file() else ""
    healthy = [line for line in table.splitlines() if ",0," in line]
    wrong = [line for line in healthy if "00003" in line or "00005" in line]
    yield works(
        done,
        **{
            "a manifest": bool(table),
            "blank and uncertain are not healthy": not wrong and len(healthy) == 2,
        },
    )


@row(
    "C7",
    "two inputs of one case id",
    "error ID_COLLISION before any work, or told apart by their folders",
    adapted=(
        "inputs of one name in different folders are told apart by the folders instead of refused"
    ),
)
def c7(stage: Stage) -> Iterator[Trial]:
    one, out = png(stage.folder / "a" / "x.png", 1), stage.out()
    done = stage.detect(one, one, run=stage.tiny, out=out)
    yield fails(done, "ID_COLLISION", exit=2, **{"nothing written": not out.exists()})
    done = stage.detect(one, png(stage.folder / "b" / "x.png", 2), run=stage.tiny)
    yield works(done, **{"two rows": set(rows_of(done)) == {"a-x", "b-x"}})


@row(
    "C8",
    "names with spaces, unicode, newline, 250 characters, a trailing dot, -rf",
    "work, or one clear error; no shell",
)
def c8(stage: Stage) -> Iterator[Trial]:
    names = [
        "with space",
        "Ünïcødé-头",
        "new\nline",
        "long" * 60,
        "dot.",
        "-rf",
        "$(touch ran)",
        "`touch ran`",
        "a;b",
    ]
    for number, name in enumerate(names):
        png(stage.folder / "in" / f"{name}.png", number)
    out = stage.out()
    done = stage.detect(stage.folder / "in", run=stage.tiny, out=out)
    rows = (out / "findings.csv").read_text().count("\n") if done.exit == 0 else 0
    yield Trial(
        done,
        (0,),
        facts={
            "a row each": len(rows_of(done)) == len(names),
            "a line each": rows == len(names) + 1,
        },
        harms={"a shell ran": any(stage.root.rglob("ran")) or Path("ran").exists()},
    )


@row("C9", "macOS ._x.nii.gz and Thumbs.db", "ignored and counted")
def c9(stage: Stage) -> Iterator[Trial]:
    png(stage.folder / "in" / "a.png")
    for name in ("._a.png", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (stage.folder / "in" / name).write_bytes(b"junk")
    done = stage.detect(stage.folder / "in", run=stage.tiny)
    states = [r["status"] for r in rows_of(done).values()]
    said = "hidden or system files (4)"
    yield works(
        done, said, **{"one case": states.count("ok") + states.count("warn") == 1 == len(states)}
    )


@row(
    "C10",
    "BraTS with label 4 or (2023) 3, another value; W39_..._Segm.nii",
    "recognised by release and printed; unknown refused",
)
def c10(stage: Stage) -> Iterator[Trial]:
    values, mask, affine = head(
        np.random.default_rng(1), shape=(6, 32, 32), modality="MR", lesion=0.3
    )
    kinds = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w"}
    for release, label in (("2020", 4), ("2023", 3), ("wrong", 9)):
        for number in (1, 2, 355):
            name = (
                f"BraTS-GLI-{number:05d}-000"
                if release == "2023"
                else f"BraTS20_Training_{number:03d}"
            )
            folder, join = stage.folder / release / name, "-" if release == "2023" else "_"
            folder.mkdir(parents=True)
            odd = number == 355 and release != "2023"
            nifti(
                folder / ("W39_1998.09.19_Segm.nii" if odd else f"{name}{join}seg.nii"),
                mask.astype(np.uint8) * label,
                affine,
            )
            for old, new in kinds.items():
                nifti(
                    folder / f"{name}{join}{new if release == '2023' else old}.nii", values, affine
                )
        out = stage.out()
        done = stage.run("prepare", "brats", stage.folder / release, "--out", out)
        table = (out / "manifest.csv").read_text() if (out / "manifest.csv").is_file() else ""
        if release == "wrong":
            yield fails(done, "LABELS", "9", exit=3, **{"no manifest": not table})
        else:
            said = (f"{label}: 3", "W39") if release == "2020" else (f"{label}: 3",)
            yield works(
                done, *said, **{"three masks": table.count("eg.nii") + table.count("Segm.nii") >= 3}
            )


@row(
    "C11",
    "a diseased case in the healthy training list",
    "error UNHEALTHY_IN_TRAIN where its mask has voxels",
)
def c11(stage: Stage) -> Iterator[Trial]:
    path = listed(stage.folder, ["c0,q0,train,0,p0.png,m0.png", *sound()[1:]])
    from PIL import Image

    mask = np.zeros((16, 16), np.uint8)
    mask[4:9, 4:9] = 255
    Image.fromarray(mask).save(stage.folder / "m0.png")
    done, out = train(stage, path)
    yield fails(
        done,
        "UNHEALTHY_IN_TRAIN",
        "c0",
        exit=2,
        **{"nothing trained": not list(out.glob("*.safetensors"))},
    )


@row(
    "C13",
    "two files of one stem in a folder (a.nii and a.nii.gz, a.png and a.jpg)",
    "a case each, and it is said",
)
def c13(stage: Stage) -> Iterator[Trial]:
    from PIL import Image

    picture = png(stage.folder / "in" / "a.png")
    Image.open(picture).save(stage.folder / "in" / "a.jpg")
    values, _, affine = head(np.random.default_rng(1), shape=(12, 16, 16))
    for name in ("v.nii", "v.nii.gz"):
        nifti(stage.folder / "in" / name, values, affine)
    names = {"a-png", "a-jpg", "v-nii", "v-nii-gz"}
    for done in (
        stage.detect(stage.folder / "in", run=stage.tiny),
        stage.inspect(stage.folder / "in"),
    ):
        rows = rows_of(done)
        sound = done.exit in (0, 4) and all(
            rows.get(name, {}).get("status") in ("ok", "warn") for name in ("a-png", "a-jpg")
        )
        yield Trial(
            done,
            (0, 4),
            ("share a name",),
            facts={"a row each": rows.keys() == names, "pictures read": sound},
        )


@row(
    "C14",
    "the root of a BIDS set: README, *.json, *.tsv, LICENSE, .bval; and a .mgz, a .nrrd",
    "what goes with images is counted, what may be meant as one is listed with the cure",
)
def c14(stage: Stage) -> Iterator[Trial]:
    root = stage.folder / "set"
    png(root / "sub-01" / "anat" / "sub-01_T1w.png")
    for name in (
        "README",
        "README.md",
        "LICENSE",
        "CHANGES",
        "dataset_description.json",
        "participants.tsv",
        "a.bval",
        "sub-01/anat/sub-01_T1w.json",
        "DICOMDIR",
        ".bidsignore",
    ):
        (root / name).write_text("text")
    done = stage.detect(root, run=stage.tiny)
    yield works(done, "sidecars (8)", **{"one row": len(rows_of(done)) == 1})
    for name in ("a.mgz", "b.nrrd"):
        (root / name).write_bytes(bytes(range(256)))
    done = stage.detect(root, run=stage.tiny)
    rows = rows_of(done)
    told = {name: rows[name]["warnings"] for name in ("a.mgz", "b.nrrd") if name in rows}
    yield works(
        done,
        **{
            "both listed": len(told) == 2 and len(rows) == 3,
            "with a cure": all("NIfTI" in text or "mri_convert" in text for text in told.values()),
        },
    )


@row("C12", "no case found", "exit 3")
def c12(stage: Stage) -> Iterator[Trial]:
    (stage.folder / "empty").mkdir()
    yield refused(stage, stage.folder / "empty", "NO_MANIFEST", exit=3)
    yield refused(stage, listed(stage.folder / "none", []), "NO_INPUT", exit=3)
    yield fails(stage.detect(stage.folder / "empty", run=stage.tiny), "NO_INPUT", exit=3)
