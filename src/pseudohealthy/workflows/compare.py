"""`compare`: several runs on the same cases and the same voxels, beside the trivial controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path

from pseudohealthy.data.given import manifest_of
from pseudohealthy.data.manifest import Manifest
from pseudohealthy.detection.detector import Detector
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
from pseudohealthy.metrics.thresholds import Threshold
from pseudohealthy.progress import say
from pseudohealthy.report import comparison_tables
from pseudohealthy.runs.run import Run
from pseudohealthy.workflows.request import verb


@dataclass(frozen=True)
class Compare:
    """Measure runs and controls on the test split of each data set; the command ``compare``.

    Args:
        runs: runs, or where they lie.
        data: manifests, or where they lie; one or several. Images: see `data.given.manifest`.
        out: folder for tables, plots and report; None writes nothing.
        protocol: one, as in `evaluate`. Fault PROTOCOL (exit 2) for several: their figures mean
            different things.
        device: as in `detect`.
        batch: planes restored at once; changes speed and memory only.
        allow_leak: also where a test patient is one that a run was trained or validated on, else
            Fault LEAK (exit 2).
        limit: at most so many test cases of a data set, evenly spread (0: all).
        case: the test case that panel.png shows by all runs; by default the one with the largest
            reference, else the first anomalous one.
        resamples: of the patient bootstrap.
        overwrite: write into `out` although something lies there.

    A case that one run cannot take is left out for all, and named in the notes.
    """

    runs: Sequence[Run | Path | str]
    data: Path | str | Manifest | Sequence[Path | str | Manifest]
    out: Path | str | None = None
    _: KW_ONLY
    protocol: str = "strict"
    device: str = "auto"
    batch: int = 32
    allow_leak: bool = False
    limit: int = 0
    case: str = ""
    resamples: int = bootstrap.RESAMPLES
    overwrite: bool = False

    def __call__(self) -> Comparison:
        one_protocol(self.protocol)
        opened = [run if isinstance(run, Run) else Run.open(run) for run in self.runs]
        if not opened:
            raise Fault(
                "USAGE", "compare needs a RUN", "name run folders before --data", exit=USAGE
            )
        several = [self.data] if isinstance(self.data, (str, Path, Manifest)) else self.data
        manifests = [manifest_of(item) for item in several]
        sets = dict(
            zip(distinct([m.root.resolve().name for m in manifests]), manifests, strict=True)
        )
        runs = dict(zip(method_names(opened), opened, strict=True))
        result = Comparison()
        caveats = {
            name: self.leaks(result, runs, name, manifest) for name, manifest in sets.items()
        }
        check_named(
            self.case,
            [item for m in sets.values() for item in evenly(list(m.split("test")), self.limit)],
        )
        refuse_unlike(runs)
        with output_folder(self.out, overwrite=self.overwrite) as folder:
            methods, thresholds = methods_of(runs, self.device, self.batch)
            for label, detector in methods.items():
                result.facts[label] = facts(detector, training=label in runs)
            result.notes += [
                f"{label}: {note}" for label in runs for note in methods[label].outdated()
            ]
            for label, run in runs.items():
                result.histories[label] = run.read_json("training_history.json") or []
            for name, manifest in sets.items():
                self.one_set(result, methods, thresholds, name, manifest, caveats[name])
            if folder is not None:
                record = {"data": {name: manifest.sha256 for name, manifest in sets.items()}}
                comparison_tables.save(result, folder, record)
                say(f"report: {folder / 'report.html'}")
            return result

    def leaks(
        self, result: Comparison, runs: dict[str, Run], name: str, manifest: Manifest
    ) -> dict[str, str]:
        """Return the caveat of each run on one data set, noted as well; "" where it knows no
        patient."""
        test = list(manifest.split("test"))
        if not test:
            raise Fault(
                "NO_TEST", f"{name} has no test case", "give some cases split = test", exit=NO_INPUT
            )
        caveats = {}
        for label, run in runs.items():
            notes = refuse_leaks(run, test, self.allow_leak)
            result.notes += [f"{name}, {label}: {note}" for note in notes]
            caveats[label] = " ".join(notes)
        return caveats

    def one_set(
        self,
        result: Comparison,
        methods: dict[str, Detector],
        thresholds: dict[str, Threshold],
        name: str,
        manifest: Manifest,
        caveats: dict[str, str],
    ) -> None:
        """Measure every method on one data set."""
        notes: list[str] = []
        example = result.examples[name] = Example(self.case)
        test = evenly(list(manifest.split("test")), self.limit)
        results, twins, costs = measured(methods, test, self.batch, notes, name, example)
        validation = wanted(
            list(manifest.split("val")), one_protocol(self.protocol).validation, self.limit
        )
        tuning = (
            measured(methods, validation, self.batch, notes, f"{name}, validation")[0]
            if validation
            else []
        )
        setting = protocols.Setting(
            thresholds=thresholds,
            validation=tuning,
            mask=MASK,
            postprocessing=OWN,
            resamples=self.resamples,
        )
        evaluation = result.evaluations[name] = protocols.measure(self.protocol, results, setting)
        twin_records = twins.records(OWN)
        sets_of_planes = {scored_by(methods[label])["plane_set"] for label in caveats}
        stated = {
            **scored_by(methods[next(iter(caveats))]),
            "plane_set": "; ".join(sorted(sets_of_planes)),
        }
        evaluation.records = [
            replace(record, caveat=caveats.get(record.method, ""), **stated)
            for record in [*evaluation.records, *twin_records]
        ]
        evaluation.notes += notes + sentences(twin_records)
        result.costs |= {(name, label): cost for label, cost in costs.items()}
        result.against_best[name] = against_best(evaluation, list(caveats))


compare = verb(Compare)
