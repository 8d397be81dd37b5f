"""The pages and answers of the app; `Guard` stands before all of them."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
)
from starlette.routing import Route

from pseudohealthy import design
from pseudohealthy.counts import many
from pseudohealthy.detection.ranks import rank_of
from pseudohealthy.errors import Fault
from pseudohealthy.formats import told
from pseudohealthy.progress import duration
from pseudohealthy.runs.run import Run
from pseudohealthy.serve import served_files
from pseudohealthy.serve.access import Guard, said
from pseudohealthy.serve.jobs import DONE, ID, PARTLY, RUNNING, WAITING, Job, Jobs
from pseudohealthy.serve.uploads import Refused, receive, title
from pseudohealthy.version import __version__


class App:
    """runs: the served ones by name; jobs: their queue; most: bytes of one upload."""

    def __init__(self, runs: Mapping[str, Run], jobs: Jobs, *, most: int):
        self.runs, self.jobs, self.most = dict(runs), jobs, most
        environment = Environment(
            loader=FunctionLoader(_template),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {
            "size": _size,
            "quoted": lambda text: quote(str(text)),
            "clock": duration,
            "many": many,
            "sentences": _sentences,
            "rank": rank_of,
        }
        self.pages = environment
        style, script = design.css() + _template("app.css"), _template("app.js")
        self.common = {"style": Markup(style), "script": Markup(script), "version": __version__}
        self.policy = (
            f"default-src 'none'; script-src '{_sha256(script)}'; style-src '{_sha256(style)}';"
            " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
            " frame-ancestors 'none'"
        )

    def starlette(self) -> Starlette:
        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            self.jobs.start()
            yield
            self.jobs.close()

        return Starlette(
            lifespan=lifespan,
            exception_handlers={Exception: _broken},
            routes=[
                Route("/", self.home),
                Route("/queue", self.queue),
                Route("/runs", self.compare),
                Route("/runs.json", self.compare_json),
                Route("/runs/{number:int}/{name}", self.picture),
                Route("/jobs", self.send, methods=["POST"]),
                Route("/jobs/{id}/cancel", self.cancel, methods=["POST"]),
                Route("/jobs/{id}/remove", self.remove, methods=["POST"]),
                Route("/jobs/{id}/{name:path}", self.file),
                Route("/zip/{id}", self.outputs),
                Route("/log/{id}", self.log),
                Route("/favicon.ico", lambda _: Response(status_code=204)),
            ],
        )

    # -- pages -------------------------------------------------------------------------------------
    def page(self, name: str, **values: Any) -> Response:
        text = self.pages.get_template(name).render(**self.common, **values)
        return HTMLResponse(text, headers={"Content-Security-Policy": self.policy})

    async def home(self, _: Request) -> Response:
        return self.page(
            "home.html.j2",
            here="home",
            runs=[served_files.described(*item) for item in self.runs.items()],
            most=self.most,
            formats=told("zip"),
            **self.listed(),
        )

    async def queue(self, _: Request) -> Response:
        """The list of jobs alone, which the page asks for again and again."""
        return HTMLResponse(self.pages.get_template("queue.html.j2").render(**self.listed()))

    def listed(self) -> dict[str, Any]:
        jobs = self.jobs.all()
        order = list(self.jobs.waiting)
        active = sorted(
            (j for j in jobs if not j.ended), key=lambda j: (j.status != RUNNING, *_place(order, j))
        )
        return {
            "active": active,
            "ended": [job for job in jobs if job.ended],
            "waiting": len(order),
            "room": self.jobs.most,
            "runs_served": list(self.runs),
        }

    async def compare(self, _: Request) -> Response:
        return self.page("runs.html.j2", here="runs", runs=self.rows())

    async def compare_json(self, _: Request) -> Response:
        return PlainTextResponse(served_files.listing(self.rows()), media_type="application/json")

    def rows(self) -> list[dict[str, Any]]:
        return [served_files.described(*item) for item in self.runs.items()]

    # -- files -------------------------------------------------------------------------------------
    async def picture(self, request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(self.runs):
            raise HTTPException(404)
        found = served_files.pictures(list(self.runs.values())[number])
        path = found.get(request.path_params["name"])
        return _file(path)

    async def file(self, request: Request) -> Response:
        job = self.job(request, ended=True)
        found = await run_in_threadpool(served_files.files, self.jobs.place(job) / "found")
        return _file(found.get(request.path_params["name"]))

    async def outputs(self, request: Request) -> Response:
        job = self.job(request, ended=True)
        place = self.jobs.place(job)
        path, name = place / f"outputs-{secrets.token_hex(8)}.zip", f"pseudohealthy-{job.id[:8]}"
        try:
            await run_in_threadpool(served_files.packed, place / "found", path, name)
        except OSError as error:
            path.unlink(missing_ok=True)
            return said(507, f"cannot pack the outputs: {error.strerror}")
        return FileResponse(
            path,
            media_type="application/zip",
            filename=f"{name}.zip",
            background=BackgroundTask(path.unlink, missing_ok=True),
        )

    async def log(self, request: Request) -> Response:
        return PlainTextResponse(served_files.log(self.jobs.place(self.job(request)) / "log.txt"))

    def job(self, request: Request, *, ended: bool = False) -> Job:
        """The job of a request. 404 where there is none, or none with results."""
        id = request.path_params["id"]
        job = self.jobs.get(id) if ID.fullmatch(id) else None
        if job is None or (ended and job.status not in (DONE, PARTLY)):
            raise HTTPException(404)
        return job

    # -- what changes something --------------------------------------------------------------------
    async def send(self, request: Request) -> Response:
        """Take files in and queue them: 201 with the job's id."""
        try:
            with self.jobs.room() as job:
                place = self.jobs.place(job)
                if int(request.headers.get("content-length", 0)) > shutil.disk_usage(place).free:
                    raise Refused(507, "there is not so much space on the disk")
                got, job.bytes = await receive(request, place / "upload", self.most)
                job.run, job.files = got.fields.get("run", ""), len(got.names)
                if job.run not in self.runs:
                    raise Refused(400, "that run is not served here")
                if not got.names:
                    raise Refused(400, "no file was sent, or only hidden ones")
                job.name = await run_in_threadpool(title, place / "upload", got.names)
                self.jobs.add(job)
        except Refused as refused:
            return said(refused.status, refused.text)
        except Fault as fault:
            return said(429, f"{fault.message}; {fault.cure}")
        except OSError as error:
            return said(507, f"cannot keep the upload: {error.strerror}")
        return JSONResponse({"id": job.id}, 201)

    async def cancel(self, request: Request) -> Response:
        await run_in_threadpool(self.jobs.cancel, self.job(request))
        return Response(status_code=204)

    async def remove(self, request: Request) -> Response:
        await run_in_threadpool(self.jobs.remove, self.job(request))
        return Response(status_code=204)


def build(
    runs: Mapping[str, Run],
    out: Path,
    *,
    token: str,
    cookie: str = "pseudohealthy",
    listen: str = "127.0.0.1",
    most: int = 2 * 2**30,
    queue: int = 20,
    device: str = "auto",
) -> Guard:
    """The whole application. most: bytes of one upload; queue: jobs that may wait."""
    jobs = Jobs(
        out / "jobs", {name: run.folder for name, run in runs.items()}, most=queue, device=device
    )
    return Guard(
        App(runs, jobs, most=most).starlette(), token=token, cookie=cookie, listen=listen, most=most
    )


def _file(path: Path | None) -> Response:
    if path is None or not path.is_file():
        raise HTTPException(404)
    return FileResponse(path, headers=served_files.headers(path))


async def _broken(_: Request, error: Exception) -> Response:
    return said(500, f"error[INTERNAL]: {type(error).__name__}; a bug: report it")


def _template(name: str) -> str:
    return (resources.files("pseudohealthy.serve") / "templates" / name).read_text("utf-8")


def _sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _place(order: list[str], job: Job) -> tuple[int]:
    return (order.index(job.id) if job.status == WAITING and job.id in order else -1,)


def _sentences(text: str, most: int = 2) -> str:
    """The first ones of a text."""
    return " ".join(re.split(r"(?<=[a-z)]\.) (?=[A-Z])", text)[:most])


def _size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
