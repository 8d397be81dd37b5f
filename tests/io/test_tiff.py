"""TIFF: the values tifffile reads, whatever the depth, sign, order, layout and compression."""

from __future__ import annotations

import io as bytes_io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudohealthy import io
from pseudohealthy.errors import Fault
from pseudohealthy.io import raster

tifffile = pytest.importorskip("tifffile")
TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8")


def values(kind: str, shape: tuple[int, ...] = (20, 37)) -> np.ndarray:
    rng, dtype = np.random.default_rng(0), np.dtype(kind)
    if dtype.kind == "f":
        return rng.normal(0, 1, shape).astype(dtype)
    low, high = (int(n) for n in (np.iinfo(dtype).min, np.iinfo(dtype).max))
    return rng.integers(max(low, -(2**23)), min(high, 2**23), shape).astype(dtype)


def layer(path: Path, **how) -> np.ndarray:
    return raster.read_picture(path, **how).voxels[0]


@pytest.mark.parametrize("kind", TYPES)
def test_stored_values_are_read_in_every_layout(tmp_path, kind):
    path = tmp_path / "x.tif"
    stack = values(kind, (2, 20, 37))
    for compression, tile, order, big in itertools.product(
        (None, "zlib", "lzma"), (None, (16, 32)), "<>", (False, True)
    ):
        tifffile.imwrite(
            path,
            stack,
            photometric="minisblack",
            compression=compression,
            tile=tile,
            byteorder=order,
            bigtiff=big,
            rowsperstrip=None if tile else 7,
        )
        np.testing.assert_array_equal(layer(path), stack.astype(np.float32))
        assert raster.read_picture(path).origin.dtype == np.dtype(kind)


@pytest.mark.parametrize("kind", ("u1", "i2", "u2", "u4"))
def test_differences_are_added_up_again(tmp_path, kind):
    stored = values(kind)
    for tile in (None, (16, 16)):
        tifffile.imwrite(tmp_path / "x.tif", stored, compression="zlib", predictor=2, tile=tile)
        np.testing.assert_array_equal(layer(tmp_path / "x.tif")[0], stored.astype(np.float32))


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_what_pillow_packs_is_read(tmp_path, compression):
    for kind in ("u1", "u2", "f4"):
        stored = values(kind)
        Image.fromarray(stored).save(tmp_path / "x.tif", compression=compression)
        np.testing.assert_array_equal(layer(tmp_path / "x.tif")[0], stored.astype(np.float32))


@pytest.mark.parametrize("kind", ("u1", "u2", "i2", "u4"))
def test_where_white_is_0_brightness_is_turned(tmp_path, kind):
    stored = values(kind)
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric="miniswhite")
    np.testing.assert_array_equal(layer(tmp_path / "x.tif")[0], (~stored).astype(np.float32))


def bits(path: Path, stored: np.ndarray, depth: int, **tags: object) -> None:
    """A TIFF of packed samples, written through tifffile as bytes with changed tags."""
    packed = (stored[..., None] >> np.arange(depth)[::-1] & 1).reshape(len(stored), -1)
    rows = np.packbits(packed.astype(np.uint8), axis=1)
    tifffile.imwrite(path, rows, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        for name, value in {"ImageWidth": stored.shape[1], "BitsPerSample": depth, **tags}.items():
            file.pages[0].tags[name].overwrite(value)


@pytest.mark.parametrize("depth", [2, 4, 10, 12, 14])
def test_packed_depths(tmp_path, depth):
    stored = np.random.default_rng(0).integers(0, 2**depth, (20, 37))
    bits(tmp_path / "x.tif", stored, depth)
    np.testing.assert_array_equal(layer(tmp_path / "x.tif")[0], stored)
    bits(tmp_path / "x.tif", stored, depth, PhotometricInterpretation=0)
    np.testing.assert_array_equal(layer(tmp_path / "x.tif")[0], 2**depth - 1 - stored)


def test_one_bit_is_black_and_white(tmp_path):
    marks = np.random.default_rng(0).random((20, 37)) > 0.5
    for compression in ("raw", "group4", "tiff_lzw"):
        Image.fromarray(marks).save(tmp_path / "x.tif", compression=compression)
        np.testing.assert_array_equal(layer(tmp_path / "x.tif")[0], np.where(marks, 255, 0))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_colours_keep_their_depth(tmp_path, kind, planar):
    colours = np.abs(values(kind, (20, 37, 3)))
    stored = colours if planar == "contig" else np.moveaxis(colours, -1, 0)
    for tile in (None, (16, 16)):
        tifffile.imwrite(
            tmp_path / "x.tif", stored, photometric="rgb", planarconfig=planar, tile=tile
        )
        for channel in range(3):
            np.testing.assert_array_equal(
                layer(tmp_path / "x.tif", channel=channel)[0], colours[..., channel]
            )
        expected = colours @ np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(layer(tmp_path / "x.tif")[0], expected, atol=1, rtol=1e-5)


def test_alpha_is_dropped_and_said_extra_channels_are_not_guessed(tmp_path):
    stored = values("u2", (20, 37, 2))
    tifffile.imwrite(
        tmp_path / "x.tif",
        stored,
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=["unassalpha"],
    )
    scan = raster.read_picture(tmp_path / "x.tif")
    np.testing.assert_array_equal(scan.voxels[0, 0], stored[..., 0])
    assert scan.warnings == ["ALPHA: transparency is dropped"]
    tifffile.imwrite(
        tmp_path / "x.tif",
        values("u1", (20, 37, 5)),
        photometric="minisblack",
        planarconfig="contig",
    )
    with pytest.raises(Fault, match=r"CHANNELS.*5 channels; name one as FILE#0"):
        raster.read_picture(tmp_path / "x.tif")
    assert layer(tmp_path / "x.tif", channel=4).shape == (1, 20, 37)


def test_inks_palettes_thumbnails_and_turns(tmp_path):
    rng = np.random.default_rng(0)
    inks = rng.integers(0, 256, (20, 37, 4)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", inks, photometric="separated")
    expected = np.asarray(Image.fromarray(inks, "CMYK").convert("RGB").convert("L"), np.float32)
    np.testing.assert_allclose(layer(tmp_path / "x.tif")[0], expected, atol=1)
    index = Image.fromarray(rng.integers(0, 3, (20, 37)).astype(np.uint8), "P")
    index.putpalette([9, 9, 9, 200, 200, 200, 70, 70, 70] + 759 * [0])
    index.save(tmp_path / "x.tif")
    expected = np.array([9, 200, 70])[np.asarray(index)]
    np.testing.assert_array_equal(layer(tmp_path / "x.tif")[0], expected)
    full = values("u2")
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(full, photometric="minisblack")
        file.write(full[::2, ::2], photometric="minisblack", subfiletype=1)
    np.testing.assert_array_equal(layer(tmp_path / "x.tif"), full[None])
    tifffile.imwrite(tmp_path / "x.tif", full, extratags=[(274, 3, 1, 6, True)])
    scan = raster.read_picture(tmp_path / "x.tif")
    np.testing.assert_array_equal(scan.voxels[0, 0], np.rot90(full, -1))
    assert "ROTATED" in scan.warnings[0]


def test_float_differences(tmp_path):
    """Predictor 3, which tifffile writes only with a codec that is not among the dependencies."""
    stored = values("f4", (16, 20))
    planes = (
        stored.astype(">f4").view(np.uint8).reshape(16, 20, 4).transpose(0, 2, 1).reshape(16, -1)
    )
    packed = np.diff(planes, axis=1, prepend=np.zeros((16, 1), np.uint8)).astype(np.uint8)
    Image.fromarray(packed.view("<f4")).save(tmp_path / "x.tif", tiffinfo={317: 3})
    np.testing.assert_array_equal(layer(tmp_path / "x.tif")[0], stored)


def test_what_is_not_read_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", (values("f4") + 1j).astype(np.complex64))
    with pytest.raises(Fault, match=r"DTYPE.*format"):
        raster.read_picture(tmp_path / "x.tif")
    stack = values("u2", (5, 20, 37))
    tifffile.imwrite(tmp_path / "x.tif", stack, photometric="minisblack", truncate=True)
    with pytest.raises(Fault, match=r"PAGES.*5 planes behind the tags of one page"):
        raster.read_picture(tmp_path / "x.tif")
    tifffile.imwrite(tmp_path / "x.tif", stack, imagej=True)
    np.testing.assert_array_equal(layer(tmp_path / "x.tif"), stack)


def test_huge_whole_numbers_are_said_to_be_rounded(tmp_path):
    tifffile.imwrite(
        tmp_path / "x.tif", np.arange(740, dtype=np.uint32).reshape(20, 37) * 5_000_000
    )
    scan = raster.read_picture(tmp_path / "x.tif")
    assert scan.voxels.max() == np.float32(739 * 5_000_000) and "PRECISION" in scan.warnings[0]


def test_cut_and_lying_tiffs_are_refused_at_once(tmp_path):
    whole = bytes_io.BytesIO()
    tifffile.imwrite(whole, values("f8"), photometric="minisblack")
    for part in (10, 200, len(whole.getvalue()) - 8):
        (tmp_path / "x.tif").write_bytes(whole.getvalue()[:part])
        with pytest.raises(Fault, match=r"TRUNCATED|NOT_IMAGE"):
            io.read(tmp_path / "x.tif")
    (tmp_path / "x.tif").write_bytes(whole.getvalue())
    with tifffile.TiffFile(tmp_path / "x.tif", mode="r+b") as file:
        file.pages[0].tags["ImageLength"].overwrite(60_000)
        file.pages[0].tags["ImageWidth"].overwrite(60_000)
    with pytest.raises(Fault, match=r"TOO_LARGE|TRUNCATED"):
        io.read(tmp_path / "x.tif")
