"""A client of the app, what it knows and what it sends; where a package of the app is missing, the
tests that import this are skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from pseudohealthy.runs.run import Run
from pseudohealthy.serve.access import Guard
from pseudohealthy.serve.app import build

TOKEN = "the-token"
HOME = "http://127.0.0.1:8765"
OURS = {"Origin": HOME}


def started(folder: Path, out: Path, **options) -> Guard:
    return build({"tiny": Run.open(folder)}, out, token=TOKEN, **{"most": 10**6, **options})


def known(client: TestClient) -> TestClient:
    client.cookies.set("pseudohealthy", TOKEN)
    return client


def post(client: TestClient, *names: str, data: bytes = b"x", run: str = "tiny", **headers: str):
    files = [("files", (name, data)) for name in names or ("a.png",)]
    return client.post("/jobs", data={"run": run}, files=files, headers={**OURS, **headers})
