"""V: nothing that names a patient leaves the input, and nothing leaves the machine."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from faults.dicoms import change, series_of
from faults.material import cut, png, volume
from faults.scoring import Trial, fails, row, works
from faults.stage import Stage

SENTINEL = "ZQXSENTINEL"
WATCH = """
import sys
def watch(event, args):
    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto', 'urllib.Request'):
        second = event in ('socket.connect', 'socket.sendto') and len(args) > 1
        where = args[1] if second else args[:1]
        if not isinstance(where, (str, bytes)):
            print('NETWORK', event, where, file=sys.stderr)
sys.addaudithook(watch)
"""


def identify(data: object) -> None:
    """Sentinels where DICOM keeps who it is about."""
    for key in (
        "PatientName",
        "PatientID",
        "AccessionNumber",
        "InstitutionName",
        "ReferringPhysicianName",
        "StudyDescription",
        "SeriesDescription",
        "PatientAddress",
        "OtherPatientIDs",
        "PatientComments",
        "StudyID",
        "ProtocolName",
    ):
        setattr(
            data,
            key,
            (
                f"{SENTINEL}-{key}"[:16]
                if key in ("AccessionNumber", "StudyID")
                else f"{SENTINEL}-{key}"
            ),
        )
    data.PatientBirthDate = "19010203"  # type: ignore[attr-defined]
    block = data.private_block(0x0011, "PRIVATE", create=True)  # type: ignore[attr-defined]
    block.add_new(1, "LO", f"{SENTINEL}-private")


def holding(folder: Path, *words: str) -> list[str]:
    """Files below a folder whose names or bytes (gzip opened) hold one of the words."""
    import gzip

    found = []
    for path in (p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.suffix == ".gz":
            with contextlib.suppress(OSError):
                data += gzip.decompress(data)
        if any(word.encode() in data or word in path.name for word in words):
            found.append(path.name)
    return found


@row(
    "V1",
    "DICOM with sentinels in every identifying tag, through every command",
    "zero hits in outputs and on the screen",
    quick=False,
)
def v1(stage: Stage) -> Iterator[Trial]:
    folder = series_of(stage, identify)
    broken = series_of(stage, identify)
    cut(sorted(broken.iterdir())[2])
    words = (SENTINEL, "19010203")
    for done, out in (
        (
            stage.detect(
                folder, broken, out=(a := stage.out()), kinds=("volumes", "panel", "json")
            ),
            a,
        ),
        (stage.run("inspect", folder, "--out", b := stage.out()), b),
    ):
        hits = holding(out, *words) if out.exists() else []
        yield Trial(
            done,
            (0, 3, 4),
            exact={"something was done": bool(done.text)},
            harms={
                f"identifiers in {hits}": bool(hits),
                "identifiers on the screen": any(w in done.text for w in words),
            },
        )
    root = stage.folder / "data"
    for place in ("train/good/a", "val/good/b"):
        (root / place).parent.mkdir(parents=True)
        shutil.make_archive(
            str(root / place),
            "zip",
            folder if place.endswith("a") else series_of(stage, identify, seed=3),
        )
    recipe, out = stage.root / "ct.toml", stage.out()
    done = stage.run("train", recipe, "--data", root, "--out", out, "--device", "cpu")
    hits = holding(out, *words)
    yield Trial(
        done,
        (0,),
        harms={f"identifiers in {hits}": bool(hits), "on the screen": SENTINEL in done.text},
    )


@row("V2", "names in NIfTI header text and extensions", "cleared in outputs, warned on input")
def v2(stage: Stage) -> Iterator[Trial]:
    image = nib.load(volume(stage.folder / "a.nii.gz"))  # type: ignore[attr-defined]
    image.header["descrip"], image.header["aux_file"], image.header["db_name"] = (
        SENTINEL.encode(),
    ) * 3
    image.header.extensions.append(
        nib.nifti1.Nifti1Extension("comment", f"{SENTINEL} {SENTINEL}".encode())
    )
    nib.save(image, stage.folder / "b.nii.gz")
    out = stage.out()
    done = stage.detect(stage.folder / "b.nii.gz", out=out, kinds=("volumes", "panel", "json"))
    hits = holding(out, SENTINEL)
    trial = works(done, "HEADER_TEXT", **{"three volumes": len(list(out.rglob("*.nii.gz"))) == 3})
    trial.harms = {f"header text in {hits}": bool(hits)}
    yield trial


@row("V3", "user names and record numbers in folder names", "no absolute path in any output")
def v3(stage: Stage) -> Iterator[Trial]:
    folder = stage.folder / "home" / SENTINEL / "MRN-0012345"
    image, out = volume(folder / "scan.nii.gz"), stage.out()
    done = stage.detect(image, out=out, kinds=("volumes", "panel", "json"))
    hits = holding(out, SENTINEL, "MRN-0012345", str(stage.root))
    yield Trial(
        done, (0,), facts={"a result": done.exit == 0}, exact={f"paths in {hits}": not hits}
    )
    hits = holding(stage.ct, str(stage.root)) + holding(stage.tiny, str(stage.root))
    yield Trial(
        stage.run("inspect", image, "--out", out := stage.out()),
        (0,),
        exact={
            f"paths in runs: {hits}": not hits,
            "none in inspect.json": not holding(out, SENTINEL, str(stage.root)),
        },
    )


@row("V4", "a crash while reading (--debug)", "the traceback holds no header", quick=False)
def v4(stage: Stage) -> Iterator[Trial]:
    sound, broken = series_of(stage, identify), series_of(stage, identify)
    change(sorted(broken.iterdir())[1], lambda data: setattr(data, "PixelSpacing", [0, 0]))
    bug = (
        "import pseudohealthy.io.dicom as d\ndef bug(*a): raise RuntimeError('a"
        " bug')\nd.regular_step = bug"
    )
    for words in ((), ("--debug",)):
        for folder, prelude in ((broken, ""), (sound, bug)):
            done = stage.process(
                "detect",
                stage.ct,
                folder,
                "--out",
                stage.out(),
                "--device",
                "cpu",
                *words,
                prelude=prelude,
            )
            done.err = (
                done.err.replace("Traceback", "(traceback)") if words else done.err
            )  # --debug asks for one
            yield Trial(done, (1, 3), harms={"identifiers in the log": SENTINEL in done.text})


@row("V5", "watch the network during every command", "no connection", quick=False)
def v5(stage: Stage) -> Iterator[Trial]:
    image, run = png(stage.folder / "a.png"), stage.folder / "run"
    for words in (
        ("recipes",),
        ("inspect", image),
        ("detect", stage.tiny, image, "--out", stage.out(), "--device", "cpu"),
        (
            "train",
            stage.root / "tiny.toml",
            "--data",
            stage.pictures,
            "--out",
            run,
            "--steps",
            2,
            "--device",
            "cpu",
        ),
        (
            "evaluate",
            stage.tiny,
            "--data",
            stage.pictures,
            "--out",
            stage.out(),
            "--limit",
            2,
            "--device",
            "cpu",
        ),
    ):
        done = stage.process(*words, prelude=WATCH)
        yield Trial(done, (0,), harms={f"{words[0]} opened a connection": "NETWORK" in done.err})


@row(
    "V7",
    "a PACS export: folders, files and a zip named after patients, in every kind of output and on"
    " the screen",
    "named by their series; the key alone, outside, mode 0600",
    quick=False,
)
def v7(stage: Stage) -> Iterator[Trial]:
    root = stage.folder / "pacs"
    for number in range(3):
        folder = series_of(
            stage,
            lambda data, n=number: (identify(data), setattr(data, "SeriesInstanceUID", f"1.2.{n}")),
        )
        for path in sorted(folder.iterdir()):
            path.rename(path.with_name(f"{SENTINEL}_{path.name}"))
        folder.rename(folder.with_name(f"ID{number}_{SENTINEL}-Head-CT"))
    folders = sorted(stage.folder.glob(f"*{SENTINEL}*"))
    damaged = sorted(folders[1].iterdir())[4]
    damaged.write_bytes(damaged.read_bytes()[:-300])
    shutil.make_archive(str(stage.folder / f"{SENTINEL}_last"), "zip", folders.pop())
    root.mkdir()
    for folder in folders:
        shutil.move(folder, root)
    for name in ("report.pdf", "photo.scan", "lost.dcm"):
        (root / f"{SENTINEL}_{name}").write_bytes(SENTINEL.encode() * 40)
    out, packed = stage.out(), stage.folder / f"{SENTINEL}_last.zip"
    key = out.with_name(f"{out.name}.key.csv")
    for words in ((), ("--resume",)):
        kinds = ("volumes", "panel", "html", "json", "nifti")
        done = stage.detect(root, packed, out=out, kinds=kinds, options=words)
        hits = holding(out, SENTINEL, "19010203") if out.exists() else []
        told = key.read_text() if key.is_file() else ""
        yield Trial(
            done,
            (4,),
            facts={"two written": len(list(out.glob("series-*"))) == 2},
            exact={
                "a key of three": told.count("\n") == 4,
                "mode 0600": key.is_file() and key.stat().st_mode & 0o777 == 0o600,
            },
            harms={f"names in {hits}": bool(hits), "names on the screen": SENTINEL in done.text},
        )
    done = stage.detect(root, out=(new := stage.out()), options=("--key", new / "key.csv"))
    yield fails(done, "KEY", exit=2)


@row(
    "V8",
    "a run of a plain data folder, handed on",
    "no image but a few of validation, no id with --pseudonymise; the card says",
)
def v8(stage: Stage) -> Iterator[Trial]:
    ids = [path.stem for path in stage.pictures.rglob("*.png")]
    for words, said in (((), "ids as they stand in the data"), (("--pseudonymise",), "pseudonyms")):
        run = stage.folder / f"run{len(words)}"
        done = stage.run(
            "train",
            stage.root / "tiny.toml",
            "--data",
            stage.pictures,
            "--out",
            run,
            "--steps",
            1,
            *words,
        )
        card = (run / "MODEL_CARD.md").read_text() if (run / "MODEL_CARD.md").is_file() else ""
        hits = holding(run, *ids) if words else []
        yield Trial(
            done,
            (0,),
            exact={"the card says so": said in card},
            harms={
                "planes in the run": bool(list(run.rglob("*.npy"))),
                f"ids in {hits}": bool(hits),
            },
        )


@row(
    "V6",
    "model trained on private data",
    "the card names the risk of memorisation; no training image in the files",
)
def v6(stage: Stage) -> Iterator[Trial]:
    from PIL import Image

    from pseudohealthy.runs import checkpoint

    card = (stage.tiny / "MODEL_CARD.md").read_text().lower()
    images = [
        np.asarray(Image.open(p), np.float32) / 127.5 - 1
        for p in (stage.pictures / "train" / "good").iterdir()
    ]
    copies = 0
    for path in stage.tiny.glob("*.safetensors"):
        for tensor in checkpoint.load(path)[0].values():
            planes = tensor.float().numpy()
            if planes.ndim >= 2 and planes.shape[-2:] == (16, 16):
                copies += sum(
                    bool(np.allclose(plane, image, atol=0.02))
                    for plane in planes.reshape(-1, 16, 16)
                    for image in images
                )
    yield Trial(
        stage.run("recipes"),
        (0,),
        exact={"the card says 'memoris'": "memoris" in card or "memoriz" in card},
        facts={"recipes": True},
        harms={"a training image in the weights": copies > 0},
    )
