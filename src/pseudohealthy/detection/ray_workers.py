"""`detect` on the processes of a Ray cluster: each holds the model, takes a few inputs at a time,
and may be lost.

A worker has one task in hand, so what is in flight is bounded by the number of workers. What a lost
worker had in hand is given out again one input at a time, to see which of them it was; cases that
it finished are kept (by the hashes of `finished`, where json is among the kinds), and an input that
loses its worker three times is a failed row. Without RAY_ADDRESS a cluster is started on this
machine for the length of the command: bound to 127.0.0.1, without dashboard and usage statistics. A
cluster of several machines needs the package on all of them, and run, inputs and output under the
same paths. `ray` (extra `ray`) is imported here alone.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pseudohealthy import progress
from pseudohealthy.counts import many
from pseudohealthy.detection import worker
from pseudohealthy.detection.detector import Detector
from pseudohealthy.errors import INTERNAL, RESOURCE, USAGE, Fault
from pseudohealthy.progress import Progress, say, say_error
from pseudohealthy.registry import GIVEN, load_file
from pseudohealthy.runs.run import Run
from pseudohealthy.signals import STOP

if TYPE_CHECKING:
    from pseudohealthy.detection.rows import Detections
    from pseudohealthy.detection.worker import Job
    from pseudohealthy.io import Source

# Inputs in hand at most: a round trip costs milliseconds, a lost worker costs what it had in hand.
CHUNK = 32
TASKS_EACH = 8  # smaller chunks where there are few inputs, so that the workers end together
TRIES = 3
LOST_IN_A_ROW = 10  # then it is not the inputs
CPUS_EACH = 4
PATIENCE = 60.0  # seconds without news
# Read when ray is imported. The second keeps a cluster of this machine alone on 127.0.0.1, on Linux
# as elsewhere
SILENT = {"RAY_USAGE_STATS_ENABLED": "0"}
LOCAL = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def require_ray() -> Any:
    """The module `ray`. Fault EXTRA (exit 2) without the `ray` extra."""
    for name, value in (SILENT if os.environ.get("RAY_ADDRESS") else SILENT | LOCAL).items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise Fault(
            "EXTRA", "--engine ray needs ray", "pip install 'pseudohealthy[ray]'", exit=USAGE
        ) from None
    return ray


class Worker:
    """One process of the cluster, with the model in memory. how: arguments of `Detector` beside the
    run."""

    def __init__(
        self, run: Path, job: Job, how: dict[str, Any], threads: int, plugins: Sequence[Path]
    ):
        progress.quiet = True  # the command says what there is to say
        torch.set_num_threads(threads)
        for file in plugins:
            load_file(file)
        self.detector, self.job = Detector(Run.open(run), **how), job

    def do(self, sources: list[Source], again: bool) -> tuple[Detections, Fault | None]:
        """Rows and faults of the sources, and what ends the whole command; again: some may be
        finished already."""
        part = worker.Detections(self.job.folder)
        bar = Progress("", len(sources))
        try:
            todo = worker.unfinished(sources, self.job, part, bar) if again else sources
            worker.work(todo, self.detector, self.job, part, bar)
        except Fault as fault:  # the output cannot be written
            return part, fault
        return part, None


def work(
    sources: Sequence[Source],
    detector: Detector,
    job: Job,
    result: Detections,
    bar: Progress,
    workers: int | None = None,
) -> None:
    """As `worker.work`, on `workers` processes: by default one per GPU, on CPUs one per four cores.

    Fault ENGINE (exit 7) where workers cannot start, or are lost one after the other whatever they
    are given.
    """
    if not sources:
        return
    with cluster(workers) as ray:
        count, cpus, gpus = room(ray.nodes(), workers, detector.device.type == "cuda")
        count = min(count, len(sources))
        how = {
            "device": detector.device.type,
            "batch": detector.batch,
            "threshold": detector.choice,
            "settings": detector.settings,
            "strict_domain": detector.strict_domain,
            "precision": "bf16" if str(detector.precision) == "torch.bfloat16" else "fp32",
        }
        kind = ray.remote(Worker).options(num_cpus=cpus, num_gpus=gpus, max_restarts=0)
        given = (
            detector.run.folder.absolute(),
            replace(job, folder=job.folder.absolute()),
            how,
            cpus,
            list(GIVEN),
        )
        running: dict[Any, tuple[Any, list[Source]]] = {}

        # With nothing in hand until it has started: the cluster may have no room for long.
        def hire() -> None:
            actor = kind.remote(*given)
            running[actor.do.remote([], False)] = actor, []

        for _ in range(count):
            hire()
        waiting = deque(tasks(sources, count))
        idle: list[Any] = []
        tries: Counter[str] = Counter()
        lost_in_a_row, told = 0, False
        while waiting or any(task for _, task in running.values()):
            while waiting and idle:
                actor, task = idle.pop(), waiting.popleft()
                again = bool(tries[task[0].case_id]) and "json" in job.kinds
                running[actor.do.remote(task, again)] = actor, task
            ready, _ = ray.wait(list(running), timeout=PATIENCE)
            if not ready:
                if not told and not any(task for _, task in running.values()):
                    say("warning: the cluster has no room for a worker yet; waiting", error=True)
                    told = True
                continue
            actor, task = running.pop(ready[0])
            try:
                part, stop = ray.get(ready[0])
            except ray.exceptions.RayTaskError as error:
                cure = "a bug: run again with --engine plain --debug and report it"
                raise Fault("INTERNAL", str(error.cause), cure, exit=INTERNAL) from None
            except ray.exceptions.RayError as error:
                lost_in_a_row += 1
                if getattr(error, "actor_init_failed", False) or lost_in_a_row > LOST_IN_A_ROW:
                    cure = "see that run, inputs and package are on every node, with enough memory"
                    raise Fault(
                        "ENGINE", "workers cannot start or do not stay", cure, exit=RESOURCE
                    ) from None
                say(
                    f"warning: a worker was lost with {many(len(task), 'input')} in hand; another"
                    " takes over",
                    error=True,
                )
                for source in task:
                    tries[source.case_id] += 1
                    if tries[source.case_id] < TRIES:
                        waiting.append([source])
                        continue
                    found = f"its worker was lost {TRIES} times"
                    cure = "run it alone, with more memory"
                    worker.fail(
                        result, source.case_id, Fault("WORKER_LOST", found, cure, exit=RESOURCE)
                    )
                    bar.advance()
                hire()
                continue
            lost_in_a_row = 0
            result.add(part)
            for fault in part.faults:
                say_error(fault)
            if stop is not None:
                raise stop
            bar.advance(len(task))
            idle.append(actor)


def room(nodes: Sequence[dict[str, Any]], workers: int | None, gpu: bool) -> tuple[int, int, int]:
    """(workers, CPUs of each, GPUs of each) that fit the nodes of a cluster, taken to be as small
    as the smallest of use."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    useful = [(int(r.get("CPU", 0)), int(r.get("GPU", 0))) for r in alive]
    useful = [(cpus, gpus) for cpus, gpus in useful if cpus and (gpus or not gpu)]
    if not useful:
        found = "the cluster has no GPU" if gpu else "the cluster has no CPU"
        raise Fault("ENGINE", found, "add nodes, or choose another --device", exit=RESOURCE)
    cpus, gpus = (min(values) for values in zip(*useful, strict=True))
    most = (min(gpus, cpus) if gpu else cpus) * len(useful)
    wanted = workers or (most if gpu else max(1, cpus // CPUS_EACH) * len(useful))
    count = min(wanted, most)
    return count, cpus // -(-count // len(useful)), int(gpu)


def tasks(sources: Sequence[Source], workers: int) -> Iterator[list[Source]]:
    """The sources in order, a few at a time, with paths that mean the same in every process."""
    size = max(1, min(CHUNK, len(sources) // (TASKS_EACH * workers)))
    for start in range(0, len(sources), size):
        yield [
            replace(s, paths=tuple(p.absolute() for p in s.paths))
            for s in sources[start : start + size]
        ]


@contextlib.contextmanager
def cluster(workers: int | None) -> Iterator[Any]:
    """The module `ray`, connected: to RAY_ADDRESS, to what the program has started, or to a cluster
    made for the while."""
    ray = require_ray()
    if ray.is_initialized():
        yield ray
        return
    silent: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    with tempfile.TemporaryDirectory(
        prefix="ph-", dir=_short(), ignore_cleanup_errors=True
    ) as temporary:
        try:
            if os.environ.get("RAY_ADDRESS"):
                ray.init(**silent)
            else:
                cpus = max(
                    workers or 1,
                    (
                        len(os.sched_getaffinity(0))
                        if hasattr(os, "sched_getaffinity")
                        else os.cpu_count() or 1
                    ),
                )
                # only rows travel, so the object store may be as small as ray allows
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    include_dashboard=False,
                    object_store_memory=100 * 2**20,
                    _temp_dir=temporary,
                    _node_ip_address="127.0.0.1",
                    **silent,
                )
        except Exception as error:  # ray raises what it likes
            text = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise Fault(
                "ENGINE",
                f"no ray cluster: {text}",
                "check RAY_ADDRESS, or take --engine plain",
                exit=RESOURCE,
            ) from None
        STOP.install()  # ray has taken SIGTERM for itself
        try:
            yield ray
        finally:
            ray.shutdown()


def _short() -> str | None:
    """A folder whose name leaves room for ray's sockets, which may have 107 characters."""
    return None if len(tempfile.gettempdir()) < 24 or not Path("/tmp").is_dir() else "/tmp"
