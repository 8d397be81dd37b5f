"""`compare`: several runs on the same cases and the same voxels, beside the trivial controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Manifest
from pseudohealthy.errors import NO_INPUT, USAGE, Fault
from pseudohealthy.evaluation import protocols
from pseudohealthy.evaluation.compare import (
    MASK,
    OWN,
    Comparison,
    against_best,
    distinct,
    facts,
    measured,
    method_names,
    methods_of,
    one_protocol,
    refuse_unlike,
)
from pseudohealthy.evaluation.example import Example, check_named
from pseudohealthy.evaluation.leaks import refuse_leaks
from pseudohealthy.evaluation.measure import evenly, scored_by, wanted
from pseudohealthy.evaluation.restoration import sentences
from pseudohealthy.io.output_folder import output_folder
from pseudohealthy.metrics import bootstrap
from pseudohealthy.progress import say
from pseudohealthy.report import comparison_tables
from pseudohealthy.runs.run import Run


def compare(
    runs: Sequence[Run | Path | str],
    data: Path | str | Manifest | Sequence[Path | str | Manifest],
    out: Path | str | None = None,
    *,
    protocol: str = "strict",
    device: str = "auto",
    batch: int = 32,
    allow_leak: bool = False,
    limit: int = 0,
    case: str = "",
    resamples: int = bootstrap.RESAMPLES,
    overwrite: bool = False,
) -> Comparison:
    """Measure runs and controls on the test split of each data set; the command ``compare``.

    limit: at most so many test cases of a data set, evenly spread (0: all). case: the
    test case that panel.png shows by all runs; by default the one with the largest reference, else the first anomalous
    one. resamples: of the patient bootstrap. A case that one run cannot take is left out
    for all, and named in the notes. Raises `Fault` LEAK (exit 2) where a test patient is one that a run was trained or
    validated on, unless `allow_leak`; PROTOCOL (exit 2) for several protocols: their figures mean different things.
    """
    chosen = one_protocol(protocol)
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    if not opened:
        raise Fault("USAGE", "compare needs a RUN", "name run folders before --data", exit=USAGE)
    several = [data] if isinstance(data, (str, Path, Manifest)) else data
    manifests = [one if isinstance(one, Manifest) else load(Path(one)) for one in several]
    sets = dict(zip(distinct([m.root.resolve().name for m in manifests]), manifests, strict=True))
    labels = method_names(opened)
    result = Comparison()
    caveats: dict[tuple[str, str], str] = {}
    for name, manifest in sets.items():
        if not len(manifest.split("test")):
            raise Fault("NO_TEST", f"{name} has no test case", "give some cases split = test", exit=NO_INPUT)
        for label, run in zip(labels, opened, strict=True):
            leaks = refuse_leaks(run, list(manifest.split("test")), allow_leak)
            result.notes += [f"{name}, {label}: {note}" for note in leaks]
            caveats[name, label] = " ".join(leaks)
    check_named(case, [one for m in sets.values() for one in evenly(list(m.split("test")), limit)])
    refuse_unlike(dict(zip(labels, opened, strict=True)))
    with output_folder(out, overwrite=overwrite) as folder:
        methods, thresholds = methods_of(dict(zip(labels, opened, strict=True)), device, batch)
        for label, detector in methods.items():
            result.facts[label] = facts(detector, training=label in labels)
        result.notes += [f"{label}: {note}" for label in labels for note in methods[label].outdated()]
        for label, run in zip(labels, opened, strict=True):
            result.histories[label] = run.read_json("training_history.json") or []
        for name, manifest in sets.items():
            notes: list[str] = []
            example = result.examples[name] = Example(case)
            test, twins, costs = measured(
                methods, evenly(list(manifest.split("test")), limit), batch, notes, name, example
            )
            validation = wanted(list(manifest.split("val")), chosen.validation, limit)
            tuning = measured(methods, validation, batch, notes, f"{name}, validation")[0] if validation else []
            setting = protocols.Setting(
                thresholds=thresholds, validation=tuning, mask=MASK, postprocessing=OWN, resamples=resamples
            )
            evaluation = result.evaluations[name] = protocols.measure(protocol, test, setting)
            restored = twins.records(OWN)
            sets_of_planes = {scored_by(methods[label])["plane_set"] for label in labels}
            stated = {**scored_by(methods[labels[0]]), "plane_set": "; ".join(sorted(sets_of_planes))}
            evaluation.records = [
                replace(record, caveat=caveats.get((name, record.method), ""), **stated)
                for record in [*evaluation.records, *restored]
            ]
            evaluation.notes += notes + sentences(restored)
            result.costs |= {(name, label): cost for label, cost in costs.items()}
            result.against_best[name] = against_best(evaluation, labels)
        if folder is not None:
            comparison_tables.save(result, folder, {"data": {name: manifest.sha256 for name, manifest in sets.items()}})
            say(f"report: {folder / 'report.html'}")
        return result
