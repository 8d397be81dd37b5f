"""W: hostile text in reports and tables; attacks on the local web app."""

from __future__ import annotations

import contextlib
import csv
import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

from faults.dicoms import put, series_of
from faults.material import png
from faults.scoring import Done, Trial, row
from faults.stage import Stage


class Tags(HTMLParser):
    """Scripts and event handlers a browser would see."""

    def __init__(self, text: str):
        super().__init__()
        self.scripts, self.handlers, self.policy = 0, 0, ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.handlers += any(name.startswith("on") or (value or "").startswith("javascript:") for name, value in attrs)
        found = dict(attrs)
        if tag == "meta" and (found.get("http-equiv") or "").lower() == "content-security-policy":
            self.policy = found.get("content") or ""


def pages(folder: Path) -> dict[Path, Tags]:
    return {path: Tags(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}


def hostile_report(stage: Stage) -> tuple[Done, Path, Path]:
    """Reports of a harmless and of a hostile input."""
    first, second = stage.out(), stage.out()
    stage.detect(png(stage.folder / "plain" / "a.png"), run=stage.tiny, out=first)
    for number, name in enumerate(['"><script>alert(1)<', "<img src=x onerror=alert(2)>", "{{7*7}}<!--"]):
        png(stage.folder / "in" / f"{name}.png".replace("/", "_"), number)
    (stage.folder / "in" / "<svg onload=alert(3)>.txt").write_text("no image")
    return stage.detect(stage.folder / "in", run=stage.tiny, out=second), first, second


@row(
    "W1",
    "markup in SeriesDescription and file names",
    "shown as text; policy default-src 'none'; no script but ours",
    adapted="the page is parsed for scripts, handlers and policy; no browser is driven here",
)
def w1(stage: Stage) -> Iterator[Trial]:
    done, first, second = hostile_report(stage)
    plain, found = (list(pages(folder).values()) for folder in (first, second))
    yield Trial(done, (0,), facts={"a page": len(found) > 0}, exact={
        "default-src 'none'": all("default-src 'none'" in page.policy for page in found)}, harms={
        "a handler or script of the input": any(p.handlers for p in found) or {p.scripts for p in found} != {p.scripts for p in plain},
    })  # fmt: skip
    evil = put(SeriesDescription="<img src=x onerror=alert(1)>", PatientName="<script>alert(1)</script>")
    out = stage.out()
    done = stage.detect(series_of(stage, evil), out=out, kinds=("volumes", "panel", "json"))
    yield Trial(done, (0,), harms={"markup": any(p.handlers for p in pages(out).values())})


@row("W2", "</script> inside embedded JSON", "escaped")
def w2(stage: Stage) -> Iterator[Trial]:
    from pseudohealthy.report.page import write_report

    rows = [{"case_id": f"</script><script>alert({k})</script>", "score": float(k), "status": "ok"} for k in range(3)]
    plain = [{"case_id": f"case {k}", "score": float(k), "status": "ok"} for k in range(3)]
    counts = []
    for name, given in (("plain", plain), ("hostile", rows)):
        write_report(stage.folder / name, title="</script><script>x", rows=given, provenance={"run": "</script>"})
        counts.append(next(iter(pages(stage.folder / name).values())).scripts)
    yield Trial(Done(0), (0,), facts={"a page": len(counts) == 2}, harms={"a script more": counts[0] != counts[1]})


class Server:
    """A running `serve`: its address, and plain HTTP requests to it."""

    def __init__(self, address: str):
        self.parts = urlsplit(address)

    def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, dict, bytes]:
        """(status, headers, body); 0 where the connection was cut."""
        link = http.client.HTTPConnection(self.parts.hostname or "", self.parts.port, timeout=20)
        try:
            link.putrequest(method, path, skip_host="Host" in (headers or {}))
            for name, value in (headers or {}).items():
                link.putheader(name, value)
            link.endheaders(body)
            answer = link.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read(2**20)
        except (OSError, http.client.HTTPException):
            return 0, {}, b""
        finally:
            link.close()


@contextlib.contextmanager
def serving(stage: Stage, *options: str) -> Iterator[Server | None]:
    """`serve` on a free port; None where the program has no such command yet."""
    code = "import sys; from pseudohealthy.__main__ import run; sys.argv[0] = 'pseudohealthy'; run()"
    words = [sys.executable, "-c", code, "serve", str(stage.tiny), "--port", "0", *options]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = stage.folder / "said"
    with open(said, "w") as out:
        child = subprocess.Popen(words, stdout=out, stderr=out, env=environment)
        try:
            end, found = time.monotonic() + 60, None
            while found is None and child.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
                found = re.search(r"http://[\w.\[\]:]+:\d+\S*", said.read_text())
            yield Server(found[0]) if found else None
        finally:
            child.kill()
            child.wait()


def attacked(stage: Stage, attack: Callable[[Server], tuple[dict, dict]], *options: str) -> Iterator[Trial]:
    """A trial of an attack on `serve`: (facts, harms) from the server; absent where there is no such command."""
    from pseudohealthy.cli import COMMANDS

    if "serve" not in COMMANDS:
        yield Trial(Done(None, err="there is no `serve`"), absent="no `serve` command yet")
        return
    with serving(stage, *options) as server:
        if server is None:
            yield Trial(Done(1), absent="`serve` names no address")
            return
        facts, harms = attack(server)
        yield Trial(
            Done(0),
            (0,),
            facts={"it answers": server.ask("GET", server.parts.path or "/")[0] == 200, **facts},
            harms=harms,
        )


@row("W3", "GET with ../../etc/passwd, %2e%2e, absolute, symlink", "404", quick=False)
def w3(stage: Stage) -> Iterator[Trial]:
    def attack(server: Server) -> tuple[dict, dict]:
        paths = ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/file?path=../../etc/passwd",
                 "/static/..%2f..%2f..%2fetc%2fpasswd", "/cases/../../../etc/passwd")  # fmt: skip
        answers = [server.ask("GET", path) for path in paths]
        return {"refused": all(a[0] in (400, 401, 403, 404) for a in answers)}, {
            "a file read": any(b"root:" in a[2] for a in answers)
        }

    yield from attacked(stage, attack)


@row("W4", "Host: evil.com (DNS rebinding)", "403 or 421", quick=False)
def w4(stage: Stage) -> Iterator[Trial]:
    yield from attacked(
        stage, lambda s: ({"refused": s.ask("GET", s.parts.path or "/", {"Host": "evil.com"})[0] in (403, 421)}, {})
    )


@row("W5", "POST from another origin (CSRF)", "403", quick=False)
def w5(stage: Stage) -> Iterator[Trial]:
    head = {"Origin": "http://evil.com", "Content-Length": "1", "Content-Type": "text/plain"}
    yield from attacked(
        stage, lambda s: ({"refused": s.ask("POST", s.parts.path or "/", head, b"x")[0] in (401, 403)}, {})
    )


@row("W6", "bind 0.0.0.0", "needs --listen, prints a warning", quick=False)
def w6(stage: Stage) -> Iterator[Trial]:
    from pseudohealthy.cli import COMMANDS

    if "serve" not in COMMANDS:
        yield Trial(Done(None), absent="no `serve` command yet")
        return
    done = stage.process("serve", stage.tiny, "--port", "0", "--host", "0.0.0.0", hang=20)
    yield Trial(done, (2, 8), harms={"open to the network": done.exit is None})


@row("W7", "upload with Content-Length 2^40", "413, memory flat", quick=False)
def w7(stage: Stage) -> Iterator[Trial]:
    head = {"Content-Length": str(2**40), "Content-Type": "application/octet-stream"}
    yield from attacked(stage, lambda s: ({"refused": s.ask("POST", "/upload", head)[0] == 413}, {}))


@row("W8", "100 uploads at once", "queue, 429", quick=False)
def w8(stage: Stage) -> Iterator[Trial]:
    def attack(server: Server) -> tuple[dict, dict]:
        from concurrent.futures import ThreadPoolExecutor

        data = png(stage.folder / "a.png").read_bytes()
        head = {"Content-Length": str(len(data)), "Content-Type": "image/png"}
        with ThreadPoolExecutor(100) as pool:
            codes = list(pool.map(lambda _: server.ask("POST", "/upload", head, data)[0], range(100)))
        return {"429 for some": 429 in codes, "none cut": 0 not in codes}, {}

    yield from attacked(stage, attack)


@row("W9", "framed by another page", "X-Frame-Options DENY, nosniff", quick=False)
def w9(stage: Stage) -> Iterator[Trial]:
    def attack(server: Server) -> tuple[dict, dict]:
        headers = server.ask("GET", server.parts.path or "/")[1]
        return {
            "DENY": headers.get("x-frame-options") == "DENY",
            "nosniff": headers.get("x-content-type-options") == "nosniff",
        }, {}

    yield from attacked(stage, attack)


@row("W10", "case ids =cmd|..., +1, -1, @x in tables", "defused for a spreadsheet")
def w10(stage: Stage) -> Iterator[Trial]:
    for number, name in enumerate(("=cmd|' -C calc'!A0", "+1", "-1", "@SUM(1)")):
        png(stage.folder / "in" / f"{name}.png", number)
        (stage.folder / "in" / f"{name}.txt").write_text("skipped, and listed")
    out = stage.out()
    done = stage.detect(stage.folder / "in", run=stage.tiny, out=out)
    cells = []
    for path in out.rglob("*.csv"):
        with open(path, newline="") as file:
            cells += [cell for line in csv.reader(file) for cell in line]
    formulas = [c for c in cells if c[:1] in "=+-@\t\r" and c and not re.fullmatch(r"-?[\d.e+-]+", c)]
    yield Trial(done, (0,), facts={"rows written": len(cells) > 40}, exact={"no formula": not formulas})
