"""The protocols by name. A new one is one file with a function of (cases, setting) and one entry
here.

"NAME:published" is the evaluation as it was released, defects included, where that differs from
what was meant.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.metric_frame import Setting
from pseudohealthy.evaluation.protocols.strict import strict
from pseudohealthy.evaluation.records import CaseResult, Record
from pseudohealthy.lazy import lazy
from pseudohealthy.registry import Registry

__all__ = [
    "PROTOCOLS",
    "CaseResult",
    "Evaluation",
    "Protocol",
    "Record",
    "Setting",
    "find",
    "measure",
    "register",
    "strict",
]


Measure = Callable[..., Evaluation]


@dataclass(frozen=True)
class Protocol:
    """One protocol.

    Args:
        where: a function of (cases, setting), or "module:function" below this package.
        hides: what its figures do not show, one sentence.
        validation: which validation cases it wants measured as well.
        published: whether "NAME:published" exists.
        chooses: metrics a sweep chooses its best setting by, the first that was measured; where it
            names none, those of the tables in their order.
    """

    where: str | Measure
    hides: str
    validation: Literal["", "labelled", "healthy"] = ""
    published: bool = False
    chooses: tuple[str, ...] = ()

    def function(self) -> Measure:
        """Load the function that measures."""
        where = self.where
        return lazy(f"evaluation.protocols.{where}" if isinstance(where, str) else where)


PROTOCOLS: Registry[Protocol] = Registry(
    "protocol",
    "protocols",
    {
        "strict": Protocol(
            "strict:strict",
            "pooled voxel figures are ruled by large lesions; read the lesion and per-case figures"
            " beside them",
            "labelled",
            chooses=("voxel_average_precision_pooled", "plane_auroc", "image_auroc"),
        ),
        "wolleb": Protocol(
            "wolleb:wolleb",
            "only diseased slices count and each gets its own Otsu threshold, so false alarms in"
            " health are not seen",
            published=True,
            chooses=("dice_otsu_per_slice_mean", "voxel_auroc_per_slice_mean"),
        ),
        "behrendt": Protocol(
            "behrendt:behrendt",
            "the threshold is tuned on labelled diseased cases of the same data set, and healthy"
            " cases are not in the Dice",
            "labelled",
            published=True,
        ),
        "thor": Protocol(
            "thor:thor",
            "the threshold is the best one for the test labels (an oracle: an upper bound), and"
            " healthy slices are left out",
            published=True,
        ),
        "thor-wrist": Protocol(
            "boxes:wrist",
            "a box is found when 10 % of it is covered, no box is predicted, and false positives"
            " are a ratio of map mass",
            "healthy",
            published=True,
        ),
        "boxes": Protocol(
            "boxes:boxes",
            "a box is drawn around a lesion, not along it, so an exact map overlaps it in part"
            " only",
            "healthy",
        ),
        "ct": Protocol(
            "ct:ct",
            "slices are ranked without a threshold, and where in the slice something was seen does"
            " not count",
        ),
    },
)


def register(
    name: str, *, hides: str, chooses: tuple[str, ...] = (), published: bool = False
) -> Callable[[Measure], Measure]:
    """Decorator: make a function of (cases, setting) a protocol; see `Protocol`.

    Raises ValueError for a name that another one has.
    """

    def add(measure: Measure) -> Measure:
        PROTOCOLS.add(name, Protocol(measure, hides, published=published, chooses=chooses))
        return measure

    return add


def find(name: str) -> tuple[Protocol, bool]:
    """Return the protocol of that name, and whether its published variant is meant.

    Raises:
        Fault: PROTOCOL (exit 2) for an unknown one.
    """
    base, _, variant = name.partition(":")
    offered = [
        option
        for key, protocol in PROTOCOLS.items()
        for option in (key, *([f"{key}:published"] if protocol.published else []))
    ]
    if name not in offered:
        near = difflib.get_close_matches(name, offered, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"use one of: {', '.join(offered)}"
        raise Fault("PROTOCOL", f"there is no protocol '{name}'", hint, exit=USAGE)
    return PROTOCOLS[base], variant == "published"


def measure(name: str, cases: Iterable[CaseResult], setting: Setting | None = None) -> Evaluation:
    """Measure ``cases`` under the protocol ``name``; its notes begin with what the protocol
    hides."""
    protocol, published = find(name)
    words = name if name == "strict" else f"{name} ({protocol.hides})"
    result = protocol.function()(
        cases, replace(setting or Setting(), protocol=words, published=published)
    )
    result.notes.insert(0, f"protocol {name}: {protocol.hides}")
    return result
