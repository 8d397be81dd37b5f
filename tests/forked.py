"""Processes of the program that need not import it again: each is forked from one that has and has
done nothing else.

    server = Server()                      # imports once, seconds
    child = server.start("detect", ...)    # a process of its own, milliseconds; used as
    subprocess.Popen is out, err = child.communicate(timeout=60)

What is proven is a process: its exit code, its streams, its signals. What an import does is not:
`python -m pseudohealthy` for that. Where forking is not safe (macOS), `start` is an ordinary
subprocess.Popen.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

IMPORTED = ("cli", "report.panel", "workflows.detect", "workflows.evaluate", "workflows.train")
LIBRARIES = ("matplotlib.backends.backend_agg", "matplotlib.figure", "PIL.Image")


class Server:
    """The process that has imported; a context manager that ends it."""

    def __init__(self) -> None:
        # short: the name of a socket has at most 100 letters.
        self.folder = Path(tempfile.mkdtemp(prefix="forked-"))
        self.process = None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(60)
        shutil.rmtree(self.folder)

    def start(
        self, *words: object, cwd: Path | None = None, **variables: str
    ) -> Process | subprocess.Popen[str]:
        """``pseudohealthy WORDS``; variables are added to the environment."""
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"} | variables
        if sys.platform != "linux":
            line = [sys.executable, "-m", "pseudohealthy", *map(str, words)]
            return subprocess.Popen(
                line,
                cwd=cwd,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        if not self.process:
            line = [sys.executable, str(Path(__file__).resolve()), str(self.folder / "socket")]
            self.process = subprocess.Popen(
                line, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
            )
            assert self.process.stdout and self.process.stdout.readline() == b"ready\n"
        request = {
            "words": [*map(str, words)],
            "cwd": str(cwd or Path.cwd()),
            "environment": environment,
        }
        return Process(self.folder / "socket", request)


class Process:
    """One forked process, with the part of subprocess.Popen's interface that tests use."""

    def __init__(self, path: Path, request: dict[str, Any]) -> None:
        self.returncode: int | None = None
        self.files = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        self.link = socket.socket(socket.AF_UNIX)
        self.link.connect(str(path))
        socket.send_fds(self.link, [b"!"], [file.fileno() for file in self.files])
        self.link.sendall(json.dumps(request).encode())
        self.link.shutdown(socket.SHUT_WR)
        self.said = self.link.makefile("r")
        self.pid = int(self.said.readline())

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.001)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code; of a signal, minus its number."""
        if self.returncode is None:
            self.link.settimeout(timeout)
            try:
                self.returncode = int(self.link.recv(20))
            except TimeoutError:
                raise subprocess.TimeoutExpired("pseudohealthy", timeout or 0) from None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it said, once it has ended."""
        self.wait(timeout)
        out, err = (os.pread(file.fileno(), 1 << 30, 0).decode() for file in self.files)
        return out, err


# -- the process that is forked --------------------------------------------------------------------
def serve(path: str) -> None:
    """Fork a process for every connection until a signal ends this one."""
    import gc
    import importlib

    for name in (*LIBRARIES, *(f"pseudohealthy.{name}" for name in IMPORTED)):
        importlib.import_module(name)
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.write(1, b"ready\n")
    while True:
        link, _ = listener.accept()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork() == 0:  # waits for the process, so that the server need not
            listener.close()
            if watched(link):
                return
            os._exit(0)
        link.close()


def watched(link: socket.socket) -> bool:
    """True in the process that is asked for; else, once it has ended and its exit code is sent,
    false."""
    _, files, _, _ = socket.recv_fds(link, 1, 2)
    request = json.loads(link.makefile("rb").read())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    child = os.fork()
    if child:
        link.sendall(f"{child}\n".encode())
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(OSError):
            link.sendall(str(status).encode())
        return False
    link.close()
    for number, file in enumerate(files, 1):
        os.dup2(file, number)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["pseudohealthy", *request["words"]]
    return True


if __name__ == "__main__":
    serve(sys.argv[1])
    from pseudohealthy.__main__ import run

    run()
