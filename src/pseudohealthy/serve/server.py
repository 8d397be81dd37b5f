"""Listening: the address, the token, and one line that says both."""

from __future__ import annotations

import contextlib
import logging
import secrets
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from pseudohealthy.errors import BAD_OUTPUT, USAGE, Fault
from pseudohealthy.io.output_folder import prepare_folder
from pseudohealthy.progress import say

NEEDS = ("jinja2", "python_multipart", "starlette", "uvicorn")


def serve(
    runs: Sequence[Path],
    out: Path,
    *,
    port: int = 8765,
    listen: str = "127.0.0.1",
    most_gb: float = 2.0,
    queue: int = 20,
    device: str = "auto",
    announce: Callable[[str], None] = print,
) -> None:
    """Serve runs until stopped (Ctrl-C or SIGTERM). announce is called once with the address, token
    included.

    port 0 takes a free one. Fault EXTRA (exit 2) without the `serve` extra, PORT (2) where the
    address cannot be bound, as `Run.open` for runs, as `io.output_folder.prepare_folder` for `out`.
    """
    try:
        for name in NEEDS:
            __import__(name)
    except ImportError as error:
        raise Fault(
            "EXTRA", f"serve needs {error.name}", "pip install 'pseudohealthy[serve]'", exit=USAGE
        ) from None
    import uvicorn

    from pseudohealthy.serve import served_files
    from pseudohealthy.serve.app import build

    if most_gb <= 0 or queue < 1:
        raise Fault(
            "USAGE",
            "--most-gb and --queue must be above 0",
            "leave them out for the defaults",
            exit=USAGE,
        )
    opened = served_files.opened(runs)
    prepare_folder(out, overwrite=True)  # our own history may lie there; two apps may not
    with bound(listen, port) as listener:
        number = listener.getsockname()[1]
        token = secrets.token_urlsafe(32)
        try:
            app = build(
                opened,
                out,
                token=token,
                cookie=f"pseudohealthy-{number}",
                listen=listen,
                most=int(most_gb * 2**30),
                queue=queue,
                device=device,
            )
        except OSError as error:
            raise Fault(
                "OUTPUT",
                f"cannot use '{out.name}': {error.strerror}",
                "choose another --out",
                exit=BAD_OUTPUT,
            ) from None
        if listen not in ("127.0.0.1", "localhost", "::1"):
            say(
                f"warning: listening on {listen}: everyone who can reach this machine and has the"
                " token can send files and see results, unencrypted; on a shared network use an"
                " SSH tunnel instead",
                error=True,
            )
        # Requests hold the token: nothing logs them.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            http="h11",
            timeout_graceful_shutdown=2,
            limit_concurrency=512,
        )
        shown = (
            "127.0.0.1"
            if listen in ("0.0.0.0", "::")
            else f"[{listen}]"
            if ":" in listen
            else listen
        )
        announce(f"http://{shown}:{number}/?token={token}")
        with contextlib.suppress(KeyboardInterrupt), ended_by_sigterm():
            uvicorn.Server(config).run(sockets=[listener])


@contextlib.contextmanager
def ended_by_sigterm():
    """SIGTERM ends the app as Ctrl-C does, worker included."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def bound(listen: str, port: int) -> socket.socket:
    """A listening socket. Fault PORT (exit 2)."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listen, port, type=socket.SOCK_STREAM
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError, UnicodeError):
        raise Fault(
            "PORT",
            f"'{listen}' port {port} is no address of this machine",
            "leave out --listen for 127.0.0.1",
            exit=USAGE,
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise Fault(
            "PORT",
            f"cannot listen on {listen} port {port}:"
            f" {getattr(error, 'strerror', None) or 'no such port'}",
            "choose another --port, or 0 for any free one",
            exit=USAGE,
        ) from None
    return listener
