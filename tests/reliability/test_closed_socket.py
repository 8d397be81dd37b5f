"""Every command does its work where no socket can be opened, and none tries to."""

from __future__ import annotations

import socket

import pytest

from pseudohealthy.__main__ import main
from pseudohealthy.cli import COMMANDS

NO_DEVICE = {"recipes", "inspect", "prepare", "info", "cache", "completion"}
# demo: its commands are these; weights: tests/interop; serve is a server.
ELSEWHERE = {"demo", "import-weights", "serve"}


@pytest.fixture
def closed(monkeypatch) -> list[str]:
    """What was tried with a socket; every try fails as without a network."""
    tried: list[str] = []

    def refuse(name: str):
        def act(*given: object, **more: object) -> None:
            tried.append(name)
            raise OSError(101, "Network is unreachable")

        return act

    for name in ("socket", "create_connection", "getaddrinfo", "gethostbyname", "socketpair"):
        monkeypatch.setattr(socket, name, refuse(name))
    return tried


@pytest.mark.slow
def test_every_command_works_with_sockets_closed(
    closed, tiny_run, pictures, tiny, tmp_path, capsys
):
    (tmp_path / "recipe.toml").write_text(tiny("training.steps=2", "training.validate=2").toml())
    image = sorted((pictures / "test" / "bad").glob("*.png"))[0]
    few = ("--data", pictures, "--limit", 4)
    lines = {
        "recipes": (),
        "inspect": (image, "--out", tmp_path / "inspect"),
        "prepare": (
            "heads",
            tmp_path,
            "--out",
            tmp_path / "prepare",
            "--set",
            "train=2",
            "val=1",
            "healthy=1",
            "lesioned=1",
        ),
        "train": (tmp_path / "recipe.toml", "--data", pictures, "--out", tmp_path / "run"),
        "detect": (tiny_run, image, "--out", tmp_path / "detect"),
        "evaluate": (tiny_run, *few, "--out", tmp_path / "evaluate"),
        "compare": (tiny_run, *few, "--out", tmp_path / "compare"),
        "sweep": (
            tiny_run,
            *few,
            "--over",
            "map.smooth=0,1",
            "--split",
            "test",
            "--out",
            tmp_path / "sweep",
        ),
        "verify": (tiny_run,),
        "info": (),
        "cache": (),
        "completion": ("bash",),
    }
    assert set(COMMANDS) - ELSEWHERE == set(lines), "a new command belongs into this list"
    for command, words in lines.items():
        device = () if command in NO_DEVICE else ("--device", "cpu")
        assert main([str(word) for word in (command, *words, *device)]) == 0, (
            command,
            capsys.readouterr().err[-500:],
        )
    assert closed == []


def test_the_block_itself_works(closed):
    with pytest.raises(OSError, match="unreachable"):
        socket.create_connection(("127.0.0.1", 9))
    assert closed == ["create_connection"]
