"""Splits into train, val and test by patient, drawn with a seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import SPLITS, Manifest
from pseudohealthy.errors import USAGE, Fault


def assign_splits(
    manifest: Manifest,
    *,
    seed: int = 0,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    anomalous_in_val: bool = False,
) -> Manifest:
    """Divide a manifest into new splits by patient, each site alike.

    The result depends on the seed and the patients' ids alone. When some patients are known to be
    healthy, train and val hold only those and all others go to test. When none is (every patient
    has a lesion somewhere, or no label exists) all patients are divided: the planes' own labels
    then say what is healthy.

    Args:
        fractions: Shares of train, val and test.
        anomalous_in_val: Beside healthy patients, divide those with an anomaly over val and test,
            in the ratio of the two fractions. A validation can then rank; training is the same.
            Patients without a label stay in test.

    Raises:
        Fault: BAD_SETTING (exit 2) for fractions that do not sum to 1.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise Fault(
            "BAD_SETTING",
            f"split fractions {tuple(fractions)}",
            "give three shares that sum to 1",
            exit=USAGE,
        )
    labels: dict[str, set[int | None]] = defaultdict(set)
    sites: dict[str, str] = {}
    for case in manifest:
        labels[case.patient_id].add(case.label)
        sites.setdefault(case.patient_id, case.site)
    healthy = [patient for patient in labels if labels[patient] == {HEALTHY}]
    split = dict.fromkeys(labels, "test") | _apportion(
        _ranked(healthy or labels, sites, seed), fractions
    )
    _, val, test = fractions
    if anomalous_in_val and healthy and val + test > 0:
        anomalous = [patient for patient in labels if ANOMALOUS in labels[patient]]
        shares = (test / (val + test), val / (val + test))  # a single one is for the test
        split |= _apportion(_ranked(anomalous, sites, seed), shares, ("test", "val"))
    return Manifest(
        [replace(case, split=split[case.patient_id]) for case in manifest], manifest.root
    )


def _ranked(patients: Iterable[str], sites: Mapping[str, str], seed: int) -> list[str]:
    """Patients by site, within a site in an order drawn with the seed."""
    names = sorted(patients)
    rank = dict(
        zip(names, np.random.default_rng(seed).permutation(len(names)).tolist(), strict=True)
    )
    return sorted(names, key=lambda patient: (sites[patient], rank[patient]))


def _apportion(
    patients: list[str], fractions: Sequence[float], splits: Sequence[str] = SPLITS
) -> dict[str, str]:
    """Split by patient, in proportion along the list.

    Every share above 0 gets a patient where there are enough.
    """
    total = len(patients)
    sizes = [round(share * total) for share in fractions]
    for position, share in enumerate(fractions):
        if share > 0 and sizes[position] == 0 and total >= len(splits):
            sizes[position] = 1
    while sum(sizes) != total:
        sizes[int(np.argmax(sizes))] += 1 if sum(sizes) < total else -1
    split, counts = {}, [0] * len(splits)
    # Grouped by site: the largest arrears get the next patient.
    for position, patient in enumerate(patients, start=1):
        arrears = [
            size * position / total - count for size, count in zip(sizes, counts, strict=True)
        ]
        place = int(np.argmax(arrears))
        split[patient] = splits[place]
        counts[place] += 1
    return split
