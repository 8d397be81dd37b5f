"""Planes of a training lie in the user's cache, never in the run, without test images; and can be
cleared."""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from pseudohealthy.cli import parse
from pseudohealthy.data.load import load
from pseudohealthy.errors import Fault
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.training import plane_cache
from pseudohealthy.training.plane_store import PlaneStore
from pseudohealthy.workflows.train import resume, train

pytestmark = pytest.mark.usefixtures("unpainted")

CANVAS = Canvas(size=16, normalise="range", value_range=(0, 255), foreground="all")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "pseudohealthy" / "planes"


def stamp(store: PlaneStore) -> int:
    return (store.folder / "planes.npy").stat().st_mtime_ns


def test_a_run_holds_no_image_and_the_cache_no_test_image(pictures, tiny, cache, tmp_path):
    run = train(tiny("training.steps=1"), pictures, tmp_path / "run", device="cpu")
    assert not list(run.folder.rglob("*.npy")) and not list(pictures.rglob("*.npy"))
    (folder,) = cache.iterdir()
    assert set(PlaneStore.open(folder).index["split"]) == {"train", "val"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    card = (run.folder / "MODEL_CARD.md").read_text()
    assert (
        "What this folder holds" in card
        and "do not lie here" in card
        and "ids as they stand in the data" in card
    )


def test_resume_cuts_the_planes_again_where_they_are_gone(pictures, tiny, cache, tmp_path):
    train(tiny("training.steps=1"), pictures, tmp_path / "run", device="cpu")
    shutil.rmtree(cache)
    assert (
        resume(tmp_path / "run", steps=2, device="cpu").record["step"] == 2
        and len(list(cache.iterdir())) == 1
    )
    resume(tmp_path / "run", steps=3, device="cpu", cache=tmp_path / "mine")
    assert len(list((tmp_path / "mine").iterdir())) == 1


def test_a_run_with_planes_inside_goes_on_and_its_card_says_so(pictures, tiny, cache, tmp_path):
    run = train(tiny("training.steps=1"), pictures, tmp_path / "run", device="cpu")
    shutil.copytree(next(cache.iterdir()), run.folder / "planes" / "0123456789ab")
    resume(run.folder, steps=2, device="cpu")
    assert (
        "holds every image it was trained and tested on"
        in (run.folder / "MODEL_CARD.md").read_text()
    )


def test_what_was_prepared_keeps_its_planes(pictures, cache, tmp_path):
    (tmp_path / "prepared").mkdir()
    load(pictures).save(tmp_path / "prepared" / "manifest.csv")
    store = plane_cache.opened(load(tmp_path / "prepared"), CANVAS)
    assert store.folder.parent == tmp_path / "prepared" / "planes" and not cache.exists()


def test_the_key_is_the_content(pictures, cache, tmp_path):
    data = shutil.copytree(pictures, tmp_path / "data")
    first = plane_cache.opened(load(data), CANVAS)
    assert plane_cache.opened(load(data), CANVAS).folder == first.folder
    bad = next((data / "test" / "bad").iterdir())
    os.utime(bad, (1, 1))  # no plane depends on it
    assert plane_cache.opened(load(data), CANVAS).folder == first.folder
    other = plane_cache.opened(load(data), replace(CANVAS, size=24)).folder
    os.utime(next((data / "train" / "good").iterdir()), (1, 1))
    changed = plane_cache.opened(load(data), CANVAS).folder
    copied = plane_cache.opened(load(shutil.copytree(data, tmp_path / "copy")), CANVAS).folder
    assert len({first.folder, other, changed, copied}) == 4


@pytest.mark.parametrize("name", ["index.csv", "planes.npy", "key.json"])
def test_a_damaged_cache_is_made_again(pictures, cache, name):
    store = plane_cache.opened(load(pictures), CANVAS)
    (store.folder / name).write_bytes((store.folder / name).read_bytes()[:3])
    assert len(plane_cache.opened(load(pictures), CANVAS)) == 28
    assert [path.name for path in cache.iterdir()] == [store.folder.name]


def test_two_at_once_make_one(pictures, cache):
    manifest, stores, barrier = load(pictures), [], threading.Barrier(2)

    def make() -> None:
        barrier.wait()
        stores.append(plane_cache.opened(manifest, CANVAS))

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 2 and stores[0].folder == stores[1].folder and len(stores[0]) == 28
    assert [path.name for path in cache.iterdir()] == [stores[0].folder.name]


def test_an_interrupted_build_leaves_nothing(pictures, cache):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plane_cache.opened(load(pictures), CANVAS, progress=stop)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_names_the_flag(pictures, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(Fault, match="--cache") as caught:
        plane_cache.opened(load(pictures), CANVAS)
    assert (caught.value.code, caught.value.exit) == ("OUTPUT", 6)


def test_the_command_shows_and_clears_nothing_else(pictures, cache, capsys):
    store = plane_cache.opened(load(pictures), CANVAS)
    (cache / "mine").mkdir()
    assert parse(["cache"]).start() == 0
    assert "1 kept" in (text := capsys.readouterr().out) and "28 planes" in text
    assert parse(["cache", "--json"]).start() == 0
    told = json.loads(capsys.readouterr().out)
    assert (
        told["entries"][0]["name"] == store.folder.name
        and told["bytes"] > 1000
        and not told["cleared"]
    )
    assert parse(["cache", "--clear"]).start() == 0
    assert "1 removed" in capsys.readouterr().out and [path.name for path in cache.iterdir()] == [
        "mine"
    ]
