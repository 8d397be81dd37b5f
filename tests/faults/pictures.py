"""P: pictures and bare arrays."""

from __future__ import annotations

import csv
import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from faults.material import blob, cut, png
from faults.niftis import alone
from faults.scoring import Done, Trial, fails, row, works
from faults.stage import Stage, only, rows_of


def huge_png(path: Path, side: int) -> Path:
    """A valid 8-bit grey PNG of side x side zeros, a few kB, written without the pixels in
    memory."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packer, packed = zlib.compressobj(9), b""
    for _ in range(side):
        packed += packer.compress(bytes(side + 1))
    header = struct.pack(">2I5B", side, side, 1, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", packed + packer.flush()) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


def values(
    stage: Stage, image: Image.Image, name: str, *words: str, low: float, high: float, **how: object
) -> Trial:
    """`inspect` reads a picture with this range of values."""
    path = stage.folder / name
    image.save(path, **how)  # type: ignore[arg-type]
    done = stage.inspect(path)
    found = only(done).get("range", [np.nan, np.nan])
    return works(
        done,
        *words,
        **{f"{name} spans {low:g}..{high:g}": bool(np.allclose(found, [low, high], atol=1.5))},
    )


@row("P1", "16-bit PNG", "full range kept")
def p1(stage: Stage) -> Iterator[Trial]:
    deep = (np.arange(400).reshape(20, 20) * 160).astype(np.uint16)
    yield values(stage, Image.fromarray(deep), "deep.png", low=0, high=63840)


@row("P2", "palette PNG", "converted to luminance, warned")
def p2(stage: Stage) -> Iterator[Trial]:
    image = Image.fromarray(
        np.arange(400, dtype=np.uint16).reshape(20, 20).astype(np.uint8) % 3
    ).convert("P")
    image.putpalette([200, 200, 200, 10, 10, 10, 90, 90, 90] + [0] * 759)
    yield values(stage, image, "palette.png", "PALETTE", low=10, high=200)


@row("P3", "RGBA, LA, CMYK and 1-bit", "alpha dropped with a warning, CMYK converted")
def p3(stage: Stage) -> Iterator[Trial]:
    grey = Image.fromarray(blob()[0])
    low, high = map(float, grey.getextrema())  # type: ignore[arg-type]
    for mode in ("RGBA", "LA"):
        image = grey.convert(mode)
        image.putalpha(40)
        yield values(stage, image, f"{mode}.png", "ALPHA", low=low, high=high)
    yield values(stage, grey.convert("RGB").convert("CMYK"), "cmyk.tiff", low=low, high=high)
    yield values(stage, grey.convert("1"), "bit.png", low=0, high=255)


@row("P4", "EXIF-rotated JPEG", "rotated by its tag, recorded")
def p4(stage: Stage) -> Iterator[Trial]:
    tags = Image.Exif()
    tags[0x0112] = 6
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 30), np.uint8))
    wide.save(stage.folder / "turned.jpg", exif=tags)
    done = stage.inspect(stage.folder / "turned.jpg")
    yield works(done, "ROTATED", **{"turned": only(done).get("shape") == [1, 1, 30, 12]})


@row("P5", "truncated PNG", "failed TRUNCATED")
def p5(stage: Stage) -> Iterator[Trial]:
    yield alone(stage, cut(png(stage.folder / "a.png", side=64)), "TRUNCATED")


@row(
    "P6",
    "PNG of a few kB that holds 121 and 196 million pixels",
    "refused TOO_LARGE, exit 7",
    quick=False,
)
def p6(stage: Stage) -> Iterator[Trial]:
    for side in (11_000, 14_000):
        trial = alone(stage, huge_png(stage.folder / f"{side}.png", side), "TOO_LARGE", exit=7)
        trial.exact = {"under 100 MB": trial.done.grown < 100}
        yield trial


class Evil:
    """What a pickle may hold: a call."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.mark}",)


@row("P7", ".npy object array (a pickle that runs a command)", "refused, exit 8, not run")
def p7(stage: Stage) -> Iterator[Trial]:
    mark, path = stage.folder / "ran", stage.folder / "a.npy"
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (16, 16), }"
    header += b" " * (117 - len(header)) + b"\n"
    path.write_bytes(
        b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + pickle.dumps(Evil(mark))
    )
    trial = alone(stage, path, "PICKLE", exit=8)
    trial.harms = {"the pickle ran": mark.exists()}
    yield trial


@row("P8", ".npy whose header lies; npz bomb", "refused", quick=False)
def p8(stage: Stage) -> Iterator[Trial]:
    for name, shape, code, exit in (
        ("lie", (300, 300), "TRUNCATED", 3),
        ("huge", (90_000, 90_000), "TOO_LARGE", 7),
    ):
        path = stage.folder / f"{name}.npy"
        np.save(path, np.zeros((20, 20)))
        raw = path.read_bytes()
        text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
        path.write_bytes(raw[:10] + text + b" " * (117 - len(text)) + b"\n" + raw[128:])
        trial = alone(stage, path, code, exit=exit)
        trial.exact = {"under 100 MB": trial.done.grown < 100}
        yield trial
    zeros = io.BytesIO()
    np.save(zeros, np.zeros((4000, 4000)))
    with zipfile.ZipFile(stage.folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("arr_0.npy", zeros.getvalue())
    trial = alone(stage, stage.folder / "bomb.npz", "NO_INPUT")
    trial.exact = {"under 100 MB": trial.done.grown < 100}
    yield trial


@row(
    "P9",
    "mixed sizes in one folder",
    "resized by the recipe's canvas, outputs in each file's own size",
)
def p9(stage: Stage) -> Iterator[Trial]:
    for side in (16, 23, 40):
        png(stage.folder / "in" / f"{side}.png", side, side=side)
    out = stage.out()
    done = stage.detect(stage.folder / "in", run=stage.tiny, out=out, kinds=("volumes", "json"))
    sizes = {p.parent.name: Image.open(p).size[0] for p in out.glob("*/anomaly_map.tiff")}
    yield works(
        done,
        **{
            "each its own size": sizes == {"16": 16, "23": 23, "40": 40},
            "three rows": len(rows_of(done)) == 3,
        },
    )


@row(
    "P10",
    "TIFF of int8, uint32, float16, float64, 12 bits; 16 bits where white is 0",
    "the stored values, polarity turned",
)
def p10(stage: Stage) -> Iterator[Trial]:
    stored = np.arange(400).reshape(20, 20)
    for array, photometric, low, high in (
        ((stored % 256 - 128).astype(np.int8), "minisblack", -128, 127),
        ((stored * 10_000).astype(np.uint32), "minisblack", 0, 3_990_000),
        ((stored / 400).astype(np.float16), "minisblack", 0, 399 / 400),
        (stored / 400, "minisblack", 0, 399 / 400),
        ((stored * 100).astype(np.uint16), "miniswhite", 65535 - 39900, 65535),
    ):
        path = stage.folder / f"{array.dtype}-{photometric}.tif"
        tifffile.imwrite(path, array, photometric=photometric)
        found = only(stage.inspect(path)).get("range", [np.nan, np.nan])
        right = bool(np.allclose(found, [low, high], rtol=1e-3))
        yield works(stage.inspect(path), **{f"{path.name} spans {low:g}..{high:g}": right})
    tifffile.imwrite(stage.folder / "complex.tif", stored + 1j)
    yield alone(stage, stage.folder / "complex.tif", "DTYPE")


@row("P11", "16-bit PNG with alpha or colour", "full depth, transparency dropped with a warning")
def p11(stage: Stage) -> Iterator[Trial]:
    deep = np.arange(400).reshape(20, 20) * 160
    for colour, channels, word in (
        (4, [deep, deep], "ALPHA"),
        (2, [deep] * 3, ""),
        (6, [deep] * 4, "ALPHA"),
    ):
        raw = np.stack(channels, -1).astype(">u2")
        packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in raw))
        parts = (
            (b"IHDR", struct.pack(">2I5B", 20, 20, 16, colour, 0, 0, 0)),
            (b"IDAT", packed),
            (b"IEND", b""),
        )
        chunks = [
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in parts
        ]
        path = stage.folder / f"{colour}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
        done = stage.inspect(path)
        yield works(done, word, **{"0..63840": only(done).get("range") == [0.0, 63840.0]})


def judged(
    stage: Stage, masks: dict[str, np.ndarray], suffix: str = "png"
) -> tuple[Done, dict[str, int]]:
    """`evaluate` of a healthy picture and one for each mask; the marked pixels of the cases it
    measured."""
    root, out = stage.folder / f"data-{suffix}", stage.out()
    png(root / "test" / "good" / "sound.png", 1)
    (root / "masks").mkdir(parents=True)
    for number, (name, mask) in enumerate(masks.items()):
        png(root / "test" / "bad" / f"{name}.png", 2 + number, bright=True)
        Image.fromarray(mask).save(root / "masks" / f"{name}.{suffix}")
    done = stage.run(
        "evaluate", stage.tiny, "--data", root, "--out", out, "--device", "cpu", hang=240
    )
    table = out / "cases.csv"
    lines = list(csv.DictReader(table.read_text().splitlines())) if table.is_file() else []
    return done, {line["case_id"]: int(float(line["reference_voxels"])) for line in lines}


@row(
    "P12",
    "mask as JPEG, in the transparency, inverted; the image with the lesion drawn on it",
    "cut at half and said, or refused, before a figure is made",
    quick=False,
)
def p12(stage: Stage) -> Iterator[Trial]:
    image, marks = blob(2, bright=True)
    byte = marks.astype(np.uint8) * 255
    drawn = np.stack([image] * 3, -1)
    drawn[marks] = [255, 0, 0]
    clear = np.dstack([np.full((16, 16, 3), 255, np.uint8), byte])
    done, found = judged(
        stage, {"drawn": drawn, "image": image, "clear": clear, "right": byte, "most": 255 - byte}
    )
    yield fails(
        done,
        "MASK_OVERLAY",
        "MASK_VALUES",
        "MASK_ALPHA",
        "MASK_INVERTED",
        exit=4,
        **{
            "right ones": found.get("clear") == found.get("right") == marks.sum(),
            "no figure of others": not found.keys() & {"drawn", "image", "most"},
        },
    )
    done, found = judged(stage, {"lossy": byte}, "jpg")
    yield works(done, "MASK_JPEG", **{"cut at half": found.get("lossy") == marks.sum()})


@row(
    "P13",
    "zip compressed by a method Python does not know; encrypted; a RAR",
    "the method is named, METHOD; ARCHIVE; NOT_ZIP",
)
def p13(stage: Stage) -> Iterator[Trial]:
    sound = io.BytesIO()
    with zipfile.ZipFile(sound, "w", zipfile.ZIP_DEFLATED) as file:
        file.write(png(stage.folder / "x.png"), "x.png")
    for name, flag, method, code, exit in (
        ("deflate64", 0, 9, "METHOD", 3),
        ("locked", 1, 8, "ARCHIVE", 8),
    ):
        raw = bytearray(sound.getvalue())
        for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            place = raw.find(magic) + at
            raw[place : place + 4] = struct.pack("<HH", flag, method)
        path = stage.folder / f"{name}.zip"
        path.write_bytes(raw)
        yield fails(
            stage.detect(path), code, "Deflate64" if method == 9 else "encrypted", exit=exit
        )
    (stage.folder / "other.zip").write_bytes(b"Rar!\x1a\x07\x00" + bytes(99))
    yield fails(stage.detect(stage.folder / "other.zip"), "NOT_ZIP", "RAR")


@row(
    "P14",
    "evaluation in which only some cases have a mask",
    "how many have voxel figures is said",
    quick=False,
)
def p14(stage: Stage) -> Iterator[Trial]:
    root = stage.folder / "data"
    for number, place in enumerate(("good/a", "good/b", "bad/c", "bad/d")):
        png(root / "test" / f"{place}.png", number, bright=place.startswith("bad"))
    (root / "masks").mkdir()
    Image.fromarray(blob(2, bright=True)[1].astype(np.uint8) * 255).save(root / "masks" / "c.png")
    out = stage.out()
    done = stage.run(
        "evaluate", stage.tiny, "--data", root, "--out", out, "--device", "cpu", hang=240
    )
    said = "3 of 4 cases have voxel figures"
    page = (out / "report.html").read_text() if done.exit == 0 else ""
    yield works(
        done, **{"on screen": said in " ".join(done.out.split()), "in the report": said in page}
    )
