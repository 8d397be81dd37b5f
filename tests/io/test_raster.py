"""Pictures and arrays: full depth in, full depth out, and nothing is unpickled, inflated or
guessed."""

from __future__ import annotations

import gzip
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pseudohealthy import io
from pseudohealthy.errors import Fault


@pytest.fixture
def grey() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 30)).astype(np.uint8)


def fault(path) -> Fault:
    with pytest.raises(Fault) as caught:
        io.read(path)
    return caught.value


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_grey_levels_are_kept_and_written_back(tmp_path, grey, suffix):
    Image.fromarray(grey).save(tmp_path / f"x{suffix}")
    scan = io.read(tmp_path / f"x{suffix}")
    assert (scan.kind, scan.name, scan.shape, scan.affine, scan.warnings) == (
        "raster",
        "x",
        (1, 1, 24, 30),
        None,
        [],
    )
    np.testing.assert_array_equal(scan.voxels[0, 0], grey)
    out = io.write_volume(scan.voxels[0], scan, tmp_path, "healthy")
    assert out.name == "healthy.png"
    np.testing.assert_array_equal(np.asarray(Image.open(out)), grey)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_p1_sixteen_bits_keep_their_range(tmp_path, suffix):
    deep = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / f"x{suffix}")
    scan = io.read(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(scan.voxels[0, 0], deep)
    back = Image.open(io.write_volume(scan.voxels[0] + 0.4, scan, tmp_path, "back"))
    np.testing.assert_array_equal(np.asarray(back), deep)


def test_masks_are_0_and_255_and_maps_are_float_tiffs(tmp_path, grey):
    Image.fromarray(grey).save(tmp_path / "x.png")
    scan = io.read(tmp_path / "x.png")
    mask = Image.open(io.write_volume(scan.voxels[0] > 99, scan, tmp_path, "mask", dtype=np.uint8))
    np.testing.assert_array_equal(np.asarray(mask), np.where(grey > 99, 255, 0))
    values = (scan.voxels[0] / 7).astype(np.float32)
    path = io.write_volume(values, scan, tmp_path, "anomaly_map", dtype=np.float32)
    assert path.name == "anomaly_map.tiff"
    np.testing.assert_array_equal(np.asarray(Image.open(path)), values[0])


def test_p2_palettes_become_luminance_not_indices(tmp_path, grey):
    image = Image.fromarray(grey % 4).convert("P")
    image.putpalette([255, 255, 255, 0, 0, 0, 80, 80, 80, 200, 200, 200])
    image.save(tmp_path / "x.png")
    scan = io.read(tmp_path / "x.png")
    np.testing.assert_array_equal(scan.voxels[0, 0], np.array([255, 0, 80, 200])[grey % 4])
    assert any("PALETTE" in w for w in scan.warnings)


def test_p3_alpha_is_dropped_colour_becomes_luminance_grey_rgb_is_grey(tmp_path, grey):
    alpha = np.full_like(grey, 9)
    for mode, planes in (("LA", (grey, alpha)), ("RGBA", (grey, grey, grey, alpha))):
        Image.fromarray(np.stack(planes, -1), mode).save(tmp_path / "x.png")
        scan = io.read(tmp_path / "x.png")
        np.testing.assert_array_equal(scan.voxels[0, 0], grey)
        assert any("ALPHA" in w for w in scan.warnings)
    Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / "x.png")
    assert not io.read(tmp_path / "x.png").warnings
    Image.fromarray(np.stack([grey, 0 * grey, 0 * grey], -1)).save(tmp_path / "x.png")
    scan = io.read(tmp_path / "x.png")
    np.testing.assert_allclose(scan.voxels[0, 0], 0.299 * grey, atol=1)
    assert any("COLOUR" in w for w in scan.warnings)
    Image.fromarray(np.stack([grey] * 4, -1), "CMYK").save(tmp_path / "x.tif")
    assert io.read(tmp_path / "x.tif").shape == (1, 1, 24, 30)
    Image.fromarray(grey > 99).save(tmp_path / "x.png")
    np.testing.assert_array_equal(
        io.read(tmp_path / "x.png").voxels[0, 0], np.where(grey > 99, 255, 0)
    )


def test_one_channel_of_a_colour_picture_can_be_named(tmp_path, grey):
    Image.fromarray(np.stack([grey, 255 - grey, grey // 2], -1)).save(tmp_path / "x.tif")
    np.testing.assert_array_equal(io.read_image("x.tif#1", tmp_path).voxels[0, 0], 255 - grey)
    assert io.read_image("x.tif#0|x.tif#2", tmp_path).shape == (2, 1, 24, 30)
    with pytest.raises(Fault, match="CHANNELS"):
        io.read_image("x.tif#3", tmp_path)


def test_p4_the_exif_rotation_is_applied_and_noted(tmp_path):
    upright = np.zeros((24, 40), np.uint8)
    upright[:12] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned; to be shown turned clockwise
    Image.fromarray(np.rot90(upright)).save(tmp_path / "x.jpg", exif=exif, quality=95)
    scan = io.read(tmp_path / "x.jpg")
    np.testing.assert_allclose(scan.voxels[0, 0], upright, atol=12)
    assert any("ROTATED" in w for w in scan.warnings)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_p5_truncated_pictures_fail(tmp_path, grey, suffix):
    path = tmp_path / f"x{suffix}"
    Image.fromarray(grey).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert fault(path).code in ("TRUNCATED", "NOT_IMAGE")


def test_other_things_named_png(tmp_path):
    (tmp_path / "x.png").write_bytes(b"<html>404</html>")
    assert fault(tmp_path / "x.png").code == "NOT_IMAGE" and "HTML" in str(
        fault(tmp_path / "x.png")
    )
    (tmp_path / "x.png").write_bytes(b"")
    assert fault(tmp_path / "x.png").code == "EMPTY_FILE"


@pytest.mark.parametrize("side", [10_001, 20_000])
def test_p6_picture_bombs_are_refused_without_decoding(tmp_path, side):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert (fault(tmp_path / "x.png").code, fault(tmp_path / "x.png").exit) == ("TOO_LARGE", 7)


def test_tiff_pages_are_planes(tmp_path, grey):
    pages = [Image.fromarray(grey), Image.fromarray(255 - grey)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    scan = io.read(tmp_path / "x.tif")
    np.testing.assert_array_equal(scan.voxels[0], [grey, 255 - grey])
    again = io.read(io.write_volume(scan.voxels[0], scan, tmp_path, "back"))
    np.testing.assert_array_equal(again.voxels, scan.voxels)


def test_a_glob_is_a_stack_in_natural_order(tmp_path, grey):
    (tmp_path / "p1").mkdir()
    for k in (1, 2, 10):
        Image.fromarray(grey // k).save(tmp_path / "p1" / f"s{k}.png")
        Image.fromarray((grey > 20 * k).astype(np.uint8) * 255).save(
            tmp_path / "p1" / f"s{k}_mask.png"
        )
    # An empty plane is part of the volume.
    Image.fromarray(0 * grey).save(tmp_path / "p1" / "s11.png")
    Image.fromarray(0 * grey).save(tmp_path / "p1" / "s11_mask.png")
    scan = io.read_image("p1/s?.png|p1/s?.png", tmp_path)
    assert scan.shape == (2, 2, 24, 30)
    scan = io.read_image("p1/s[0-9]*[0-9].png", tmp_path)
    scan = io.read_image("p1/s??.png", tmp_path)
    assert scan.name == "p1" and scan.shape == (1, 2, 24, 30)
    np.testing.assert_array_equal(scan.voxels[0], [grey // 10, 0 * grey])
    mask = io.read_mask("p1/s??_mask.png", tmp_path, scan)
    np.testing.assert_array_equal(mask, [grey > 200, 0 * grey > 0])
    with pytest.raises(Fault, match="GRID_MISMATCH"):
        io.read_mask("p1/*_mask.png", tmp_path, scan)
    out = io.read(io.write_volume(scan.voxels[0], scan, tmp_path, "healthy"))
    np.testing.assert_array_equal(out.voxels, scan.voxels)
    Image.fromarray(grey[:20]).save(tmp_path / "p1" / "s12.png")
    with pytest.raises(Fault, match=r"GRID_MISMATCH.*20 x 30, 24 x 30"):
        io.read_image("p1/s??.png", tmp_path)


def test_coloured_masks_count_every_colour_but_black(tmp_path, grey):
    Image.fromarray(grey).save(tmp_path / "x.png")
    colours = np.zeros((24, 30, 3), np.uint8)
    colours[2, 3], colours[5, 6] = (0, 0, 1), (255, 0, 0)
    Image.fromarray(colours).save(tmp_path / "m.png")
    mask = io.read_mask("m.png", tmp_path, io.read_image("x.png", tmp_path))
    assert mask.sum() == 2 and mask[0, 2, 3] and mask[0, 5, 6]


def test_paths_of_a_manifest_stay_below_their_folder(tmp_path, grey):
    Image.fromarray(grey).save(tmp_path / "x.png")
    (tmp_path / "data").mkdir()
    for spec in ("../x.png", "/etc/passwd", "a/../../x.png", str(tmp_path / "x.png"), "../*.png"):
        with pytest.raises(Fault) as caught:
            io.read_image(spec, tmp_path / "data")
        assert (caught.value.code, caught.value.exit) == ("PATH_ESCAPE", 8)
    with pytest.raises(Fault, match="NOT_FOUND"):
        io.read_image("nothing.png", tmp_path)


@pytest.mark.parametrize(
    "shape, expected",
    [((24, 30), (1, 1)), ((24, 30, 1), (1, 1)), ((5, 24, 30), (1, 5)), ((2, 5, 24, 30), (2, 5))],
)
def test_npy_arrays_come_and_go_in_their_own_shape(tmp_path, shape, expected):
    array = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint8)
    np.save(tmp_path / "x.npy", array)
    scan = io.read(tmp_path / "x.npy")
    assert scan.kind == "array" and scan.shape == (*expected, 24, 30)
    out = np.load(io.write_volume(scan.voxels, scan, tmp_path, "back"))
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out, array)


def test_p7_object_arrays_are_refused_without_unpickling(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "pwned"), "w")

    np.save(tmp_path / "x.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    assert (fault(tmp_path / "x.npy").code, fault(tmp_path / "x.npy").exit) == ("PICKLE", 8)
    assert not (tmp_path / "pwned").exists()


def test_p8_npy_headers_that_lie(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((24, 30)))
    raw = (tmp_path / "x.npy").read_bytes()
    for shape, code in (
        (b"(2400, 30)", "TRUNCATED"),
        (b"(99999, 99999)", "TOO_LARGE"),
        (b"(24, 'a')", "NOT_NPY"),
    ):
        changed = raw.replace(b"(24, 30), }" + b" " * (len(shape) - 8), shape + b", }")
        assert len(changed) == len(raw) and changed != raw
        (tmp_path / "y.npy").write_bytes(changed)
        assert fault(tmp_path / "y.npy").code == code
    np.save(tmp_path / "c.npy", np.zeros((24, 30), complex))
    assert fault(tmp_path / "c.npy").code == "DTYPE"
    (tmp_path / "z.npy").write_bytes(b"nothing")
    assert fault(tmp_path / "z.npy").code == "NOT_NPY"


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize(
    "name", ["train-images-idx3-ubyte", "t10k-images.idx3-ubyte", "train-images-idx3-ubyte.gz"]
)
def test_idx_items_are_cases(tmp_path, name):
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
    content = idx_bytes(images)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(5, dtype=np.uint8)))
    sources, skipped = io.discover([tmp_path])
    assert (
        len(sources) == 5
        and len({s.case_id for s in sources}) == 5
        and "labels" in skipped[0].reason
    )
    for k, source in enumerate(sources):
        np.testing.assert_array_equal(io.read(source).voxels[0, 0], images[k])
    scan = io.read_image(f"{name}#3", tmp_path)
    np.testing.assert_array_equal(scan.voxels[0, 0], images[3])
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.write_volume(scan.voxels, scan, tmp_path, "o"))), images[3]
    )
    with pytest.raises(Fault, match=r"ITEM.*item 5 of 5"):
        io.read_image(f"{name}#5", tmp_path)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: raw + b"x"])
def test_idx_files_hold_exactly_what_they_declare(tmp_path, damage):
    path = tmp_path / "a-idx3-ubyte"
    path.write_bytes(damage(idx_bytes(np.zeros((5, 28, 28), np.uint8))))
    with pytest.raises(Fault, match="TRUNCATED"):
        io.read(io.Source("a", "idx", (path,), item=0))
    path.write_bytes(b"\0\0\x42\3" + bytes(100))
    with pytest.raises(Fault, match="wrong magic"):
        io.read(path)


def test_real_mnist_digits(shared):
    scan = io.read(str(shared / "data" / "mnist" / "t10k-images-idx3-ubyte.gz") + "#0")
    assert scan.shape == (1, 1, 28, 28) and int(scan.voxels.sum()) == 18454  # the well-known seven


def deep_png(path, channels: np.ndarray, colour: int, *, interlaced: bool = False) -> None:
    """A 16-bit PNG (H, W, channels) of a colour type that Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width, _ = channels.shape
    adam7 = (
        (0, 8, 0, 8),
        (0, 8, 4, 8),
        (4, 8, 0, 4),
        (0, 4, 2, 4),
        (2, 4, 0, 2),
        (0, 2, 1, 2),
        (1, 2, 0, 1),
    )
    rows = b""
    for top, down, left, across in adam7 if interlaced else ((0, 1, 0, 1),):
        part = channels[top::down, left::across].astype(">u2")
        rows += b"".join(b"\0" + row.tobytes() for row in part if row.size)
    header = struct.pack(">2I5B", width, height, 16, colour, 0, 0, int(interlaced))
    body = chunk(b"IHDR", header) + chunk(b"gAMA", struct.pack(">I", 45455))
    body += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("interlaced", [False, True])
def test_colour_and_alpha_of_16_bits_keep_their_depth(tmp_path, interlaced):
    rng = np.random.default_rng(0)
    grey, alpha = rng.integers(0, 65536, (2, 24, 30, 1)).astype(np.uint16)
    colours = rng.integers(0, 65536, (24, 30, 3)).astype(np.uint16)
    luma = colours @ np.array([0.299, 0.587, 0.114])
    path = tmp_path / "x.png"
    for stored, colour, expected, said in (
        (grey, 0, grey[..., 0], []),
        (np.dstack([grey, alpha]), 4, grey[..., 0], ["ALPHA: transparency is dropped"]),
        (np.dstack([grey] * 3), 2, grey[..., 0], []),
        (colours, 2, luma, ["COLOUR: converted to luminance"]),
        (
            np.dstack([colours, alpha]),
            6,
            luma,
            ["ALPHA: transparency is dropped", "COLOUR: converted to luminance"],
        ),
    ):
        deep_png(path, stored, colour, interlaced=interlaced)
        scan = io.read(path)
        np.testing.assert_allclose(
            scan.voxels[0, 0], expected, atol=0 if expected.dtype == np.uint16 else 1
        )
        assert scan.warnings == said and scan.origin.dtype == np.uint16
    np.testing.assert_array_equal(io.read_image("x.png#1", tmp_path).voxels[0, 0], colours[..., 1])


def test_bitmaps_of_every_depth_and_jpegs_of_inks(tmp_path, grey):
    Image.fromarray(grey > 99).save(tmp_path / "x.bmp")
    np.testing.assert_array_equal(
        io.read(tmp_path / "x.bmp").voxels[0, 0], np.where(grey > 99, 255, 0)
    )
    Image.fromarray(np.dstack([grey] * 3 + [0 * grey + 255])).save(tmp_path / "x.bmp")
    np.testing.assert_array_equal(io.read(tmp_path / "x.bmp").voxels[0, 0], grey)
    smooth = np.linspace(20, 230, 30).astype(np.uint8)[None].repeat(24, 0)
    Image.fromarray(np.dstack([255 - smooth] * 3 + [0 * smooth]), "CMYK").save(
        tmp_path / "x.jpg", quality=95
    )
    np.testing.assert_allclose(io.read(tmp_path / "x.jpg").voxels[0, 0], smooth, atol=6)


def test_colour_arrays_are_pictures_and_other_last_axes_of_three_are_asked_about(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (24, 30, 4)).astype(np.uint8)
    for channels in (3, 4):
        np.save(tmp_path / "x.npy", colours[..., :channels])
        scan = io.read(tmp_path / "x.npy")
        np.testing.assert_array_equal(
            scan.voxels[0, 0], np.asarray(Image.fromarray(colours[..., :3]).convert("L"))
        )
    np.save(tmp_path / "x.npy", colours[..., :3] / 255)
    assert fault(tmp_path / "x.npy").code == "SHAPE" and "(24, 30, 3)" in str(
        fault(tmp_path / "x.npy")
    )
