"""Chromium without a window, driven over its debugging pipe: enough to open a page offline, ask it
things and take its picture."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from outside import executable, needs

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
    "--hide-scrollbars",
    "--window-size=1400,1100",
)
WEBGL = (
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)
NO_WEBGL = ("--disable-gpu", "--disable-3d-apis")


needs_chromium = needs("chromium")


class Browser:
    """One page; `said` holds what it wrote to the console, its exceptions and refused loads,
    `asked` the addresses it wanted beyond the page itself and data inside it."""

    def __init__(self, profile: Path, *, webgl: bool = True, limit: float = 60):
        to_child, from_us = os.pipe()
        to_us, from_child = os.pipe()
        command = [
            str(executable("chromium")),
            *FLAGS,
            *(WEBGL if webgl else NO_WEBGL),
            f"--user-data-dir={profile}",
            "about:blank",
        ]

        def pipes() -> None:  # Chromium listens on 3 and answers on 4
            ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (to_child, from_child)]
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self.process = subprocess.Popen(
            command,
            preexec_fn=pipes,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        self.out, self.into, self.limit = from_us, to_us, limit
        os.set_blocking(self.into, False)
        self.rest, self.number, self.session = b"", 0, ""
        self.said: list[str] = []
        self.asked: list[str] = []
        target = next(
            t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"
        )
        self.session = self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.into)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + self.limit
        while time.monotonic() < end:
            head, found, self.rest = self.rest.partition(b"\0")
            if not found:
                self.rest = head
                try:
                    self.rest += os.read(self.into, 1 << 20)
                except BlockingIOError:
                    time.sleep(0.01)
                continue
            answer = json.loads(head)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.heard(answer.get("method"), answer.get("params", {}))
        raise TimeoutError(method)

    def heard(self, event: str | None, values: dict[str, Any]) -> None:
        if event == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self.said.append(
                " ".join(str(a.get("value", a.get("description"))) for a in values["args"])
            )
        elif event == "Runtime.exceptionThrown":
            self.said.append(str(values["exceptionDetails"].get("exception", values)))
        elif event == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.said.append(values["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            url = values["request"]["url"]
            if not url.startswith(("data:", "blob:")):
                self.asked.append(url)

    def open(self, page: Path | str) -> str:
        """Load a file or an address and wait until it says it is ready; returns what it drew
        with."""
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        end = time.monotonic() + self.limit
        while time.monotonic() < end:
            if kind := self.ask("document.body && document.body.dataset.ready || ''"):
                return kind
            time.sleep(0.1)
        raise TimeoutError(f"never ready: {self.said}")

    def ask(self, expression: str) -> Any:
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, path: Path) -> Path:
        path.write_bytes(
            base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        )
        return path
