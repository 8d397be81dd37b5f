"""W: attacks on the local web app."""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from faults.material import png
from faults.scoring import Done, Trial, row
from faults.stage import Stage


class Server:
    """A running `serve`: its address, plain HTTP requests to it, and how much memory it has
    needed."""

    def __init__(self, address: str, pid: int):
        self.parts, self.pid = urlsplit(address), pid
        self.token = self.parts.query.removeprefix("token=")
        self.origin = f"http://{self.parts.netloc}"
        self.known = {"Cookie": f"pseudohealthy-{self.parts.port}={self.token}"}
        self.ours = {**self.known, "Origin": self.origin}

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterator[bytes] | None = None,
    ) -> tuple[int, dict, bytes]:
        """(status, headers, body); 0 where the connection was cut. An iterator is sent in pieces,
        its size undeclared."""
        link = http.client.HTTPConnection(self.parts.hostname or "", self.parts.port, timeout=60)
        try:
            link.putrequest(method, path, skip_host="Host" in (headers or {}))
            for name, value in (headers or {}).items():
                link.putheader(name, value)
            pieces = not isinstance(body, bytes | None)
            if pieces:
                link.putheader("Transfer-Encoding", "chunked")
            # Refused while it is sent: the answer is there all the same.
            with contextlib.suppress(ConnectionError):
                link.endheaders(body, encode_chunked=pieces)
            answer = link.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read(2**20)
        except (OSError, http.client.HTTPException):
            return 0, {}, b""
        finally:
            link.close()

    def send(self, name: str, data: bytes, headers: Mapping[str, str]) -> int:
        """The status of an upload as browsers send it."""
        body = (
            b"--b\r\nContent-Disposition: form-data;"
            b' name="run"\r\n\r\ntiny\r\n--b\r\nContent-Disposition: form-data; name="files";'
            b' filename="%s"\r\n\r\n%s\r\n--b--\r\n' % (name.encode(), data)
        )
        head = {
            **headers,
            "Content-Type": "multipart/form-data; boundary=b",
            "Content-Length": str(len(body)),
        }
        return self.ask("POST", "/jobs", head, body)[0]

    @property
    def peak(self) -> float:
        """MB."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+)", text)[0]) / 1024


@contextlib.contextmanager
def serving(stage: Stage, *options: str) -> Iterator[Server | None]:
    """`serve` on a free port; None where it names no address."""
    code = (
        "import sys; from pseudohealthy.__main__ import run; sys.argv[0] = 'pseudohealthy'; run()"
    )
    words = [
        sys.executable,
        "-c",
        code,
        "serve",
        str(stage.tiny),
        "--port",
        "0",
        "--out",
        str(stage.folder / "app"),
        *options,
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    said = stage.folder / "said"
    with open(said, "w") as out:
        child = subprocess.Popen(
            [*words, "--device", "cpu"], stdout=out, stderr=out, env=environment
        )
        try:
            end, found = time.monotonic() + 60, None
            while found is None and child.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
                found = re.search(r"http://[\w.\[\]:]+:\d+/\?token=\S+", said.read_text())
            yield Server(found[0], child.pid) if found else None
        finally:
            child.kill()
            child.wait()


def attacked(
    stage: Stage, attack: Callable[[Server], tuple[dict, dict]], *options: str
) -> Iterator[Trial]:
    """A trial of an attack on `serve`: (facts, harms) from the server, which must answer its owner
    afterwards as before."""
    with serving(stage, *options) as server:
        if server is None:
            yield Trial(Done(1), absent="`serve` names no address")
            return
        facts, harms = attack(server)
        facts["it answers its owner"] = server.ask("GET", "/", server.known)[0] == 200
        yield Trial(
            Done(0, out=(stage.folder / "said").read_text()), (0,), facts=facts, harms=harms
        )


@row("W3", "GET with ../../etc/passwd, %2e%2e, absolute, symlink", "404", quick=False)
def w3(stage: Stage) -> Iterator[Trial]:
    job = stage.folder / "app" / "jobs" / ("0" * 32)
    (job / "found").mkdir(parents=True)
    (job / "found" / "link.txt").symlink_to("/etc/passwd")
    (job / "found" / "report.html").write_text("<p>nothing")
    (job / "job.json").write_text(
        json.dumps({"id": job.name, "name": "a", "run": "tiny", "status": "done"})
    )

    def attack(server: Server) -> tuple[dict, dict]:
        own = f"/jobs/{job.name}"
        paths = (
            "/../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "//etc/passwd",
            "/file?path=../../etc/passwd",
            "/static/..%2f..%2f..%2fetc%2fpasswd",
            "/jobs/../../../etc/passwd",
            f"{own}/../../../../../etc/passwd",
            f"{own}/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
            f"{own}//etc/passwd",
            f"{own}/%2fetc%2fpasswd",
            f"{own}/link.txt",
            f"{own}/../job.json",
            f"{own}/%2e%2e/job.json",
            "/zip/..",
            "/runs/0/..%2frun.json",
        )
        answers = [server.ask("GET", path, server.known) for path in paths]
        return {
            "404": all(a[0] == 404 for a in answers),
            "403 without the token": all(server.ask("GET", path)[0] == 403 for path in paths),
            "its own file is given": (
                server.ask("GET", f"{own}/report.html", server.known)[0] == 200
            ),
        }, {"a file read": any(b"root:" in a[2] for a in answers)}

    yield from attacked(stage, attack)


@row("W4", "Host: evil.com (DNS rebinding)", "403 or 421", quick=False)
def w4(stage: Stage) -> Iterator[Trial]:
    def attack(server: Server) -> tuple[dict, dict]:
        foreign = ("evil.com", "127.0.0.1.evil.com", f"evil.com:{server.parts.port}", "")
        codes = [server.ask("GET", "/", {**server.known, "Host": name})[0] for name in foreign]
        return {"refused": all(code in (400, 403, 421) for code in codes)}, {}

    yield from attacked(stage, attack)


@row("W5", "POST from another origin (CSRF)", "403", quick=False)
def w5(stage: Stage) -> Iterator[Trial]:
    def attack(server: Server) -> tuple[dict, dict]:
        data = png(stage.folder / "a.png").read_bytes()
        foreign = (
            {"Origin": "http://evil.com"},
            {"Origin": "null"},
            {},
            {"Sec-Fetch-Site": "cross-site"},
            {"Origin": server.origin, "Sec-Fetch-Site": "same-site"},
        )
        codes = [server.send("a.png", data, {**server.known, **head}) for head in foreign]
        stranger = server.send("a.png", data, {"Origin": server.origin})
        queued = list((stage.folder / "app" / "jobs").iterdir())
        return {
            "another origin": codes == [403] * len(foreign),
            "no token": stranger == 403,
            "our own page": server.send("a.png", data, server.ours) == 201,
        }, {"a job queued": bool(queued)}

    yield from attacked(stage, attack)


@row("W6", "bind 0.0.0.0", "needs --listen, prints a warning", quick=False)
def w6(stage: Stage) -> Iterator[Trial]:
    words = ("serve", stage.tiny, "--port", "0", "--out", stage.folder / "app", "--host", "0.0.0.0")
    done = stage.process(*words, hang=20)
    yield Trial(done, (2,), code="USAGE", harms={"open to the network": done.exit is None})

    def elsewhere(server: Server) -> bool:
        """Whether another address of this machine answers."""
        try:
            socket.create_connection(("127.0.0.2", server.parts.port or 0), timeout=5).close()
        except OSError:
            return False
        return True

    yield from attacked(stage, lambda s: ({}, {"open to the network": elsewhere(s)}))
    for trial in attacked(
        stage,
        lambda s: ({"open as asked": elsewhere(s), "token": s.ask("GET", "/")[0] == 403}, {}),
        "--listen",
        "0.0.0.0",
    ):
        trial.says = ("warning: listening on 0.0.0.0",)
        yield trial


@row("W7", "upload with Content-Length 2^40", "413, memory flat", quick=False)
def w7(stage: Stage) -> Iterator[Trial]:
    def attack(server: Server) -> tuple[dict, dict]:
        form = {**server.ours, "Content-Type": "multipart/form-data; boundary=b"}
        part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.nii"\r\n\r\n'
        before = server.peak
        declared = server.ask("POST", "/jobs", {**form, "Content-Length": str(2**40)})[0]
        endless = server.ask(
            "POST", "/jobs", form, itertools.chain([part], itertools.repeat(bytes(2**16), 2**13))
        )[0]
        gzipped = server.ask(
            "POST", "/jobs", {**form, "Content-Encoding": "gzip", "Content-Length": "1"}, b"x"
        )[0]
        flat = server.peak - before < 60
        bomb = io.BytesIO()
        with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.dcm", bytes(10**8))
        server.send("bomb.zip", bomb.getvalue(), server.ours)
        end = time.monotonic() + 90
        while (
            b"failed" not in server.ask("GET", "/queue", server.known)[2] and time.monotonic() < end
        ):
            time.sleep(0.5)
        kept = sum(
            path.stat().st_size for path in (stage.folder / "app").rglob("*") if path.is_file()
        )
        return {
            "declared 413": declared == 413,
            "undeclared 413": endless in (413, 0),
            "gzip refused": gzipped == 415,
            "memory flat": flat,
            "bomb refused": b"error[ARCHIVE]" in server.ask("GET", "/queue", server.known)[2],
            "nothing kept": kept < 10**5,
        }, {}

    yield from attacked(stage, attack, "--most-gb", "0.1")


@row("W8", "100 uploads at once", "queue, 429", quick=False)
def w8(stage: Stage) -> Iterator[Trial]:
    def attack(server: Server) -> tuple[dict, dict]:
        from concurrent.futures import ThreadPoolExecutor

        data = png(stage.folder / "a.png").read_bytes()
        with ThreadPoolExecutor(100) as pool:
            codes = list(pool.map(lambda k: server.send(f"{k}.png", data, server.ours), range(100)))
        counts = Counter(codes)
        return {
            "429 or queued": set(counts) == {201, 429},
            "as many as fit": 20 <= counts[201] <= 25,
        }, {}

    yield from attacked(stage, attack)


@row("W9", "framed by another page", "X-Frame-Options DENY, nosniff", quick=False)
def w9(stage: Stage) -> Iterator[Trial]:
    def attack(server: Server) -> tuple[dict, dict]:
        paths = ("/", "/runs", "/queue", "/nothing", "/runs/0/training_curves.png")
        found = [server.ask("GET", path, head)[1] for path in paths for head in (server.known, {})]
        return {
            "DENY": all(headers.get("x-frame-options") == "DENY" for headers in found),
            "nosniff": all(headers.get("x-content-type-options") == "nosniff" for headers in found),
            "policy": all(
                "frame-ancestors 'none'" in headers.get("content-security-policy", "")
                for headers in found
            ),
        }, {}

    yield from attacked(stage, attack)
