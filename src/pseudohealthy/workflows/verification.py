"""What was checked, with what result, and when two results count as the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from pseudohealthy.devices import computes_bf16
from pseudohealthy.errors import BAD_MODEL
from pseudohealthy.report import terminal

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


AGREES, DIFFERS, UNCHECKED = "agrees", "DIFFERS", "not checked"


# Largest difference of a map or score that counts as the same, as a share of the map's range (of a
# score: of itself; of either, where it is below 1, of 1): other processors and numbers of threads
# round otherwise, and a walk of many steps adds that up. Only results of the same precision are
# compared.
FLOAT32, BFLOAT16 = 1e-3, 5e-2


LARGEST = 512_000_000  # voxels


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Args:
        what: its name.
        result: `AGREES`, `DIFFERS` or `UNCHECKED`.
        detail: with which figure, or why not.
    """

    what: str
    result: str
    detail: str = ""


@dataclass
class Verification:
    """All checks, and the exit code they mean: 0 when none differs, else `damaged`.

    That is 5 for a run, 4 for outputs.
    """

    checks: list[Check] = field(default_factory=list)
    damaged: int = BAD_MODEL

    def add(self, what: str, same: bool | None, detail: str = "") -> bool:
        """Add a check; ``same`` is None where it could not be made. Return whether it agrees."""
        self.checks.append(
            Check(what, UNCHECKED if same is None else AGREES if same else DIFFERS, detail)
        )
        return bool(same)

    def count(self, result: str) -> int:
        """Count the checks with this result."""
        return sum(check.result == result for check in self.checks)

    @property
    def exit(self) -> int:
        """The exit code of the command."""
        return self.damaged if self.count(DIFFERS) else 0

    def as_dict(self) -> dict[str, Any]:
        """Return what ``verify --json`` prints."""
        counts = {result: self.count(result) for result in (AGREES, DIFFERS, UNCHECKED)}
        return {
            "checks": [asdict(check) for check in self.checks],
            "counts": counts,
            "exit": self.exit,
        }

    def text(self) -> str:
        """Return a table, and the three counts."""
        table = terminal.columns((c.what, c.result, c.detail) for c in self.checks)
        counts = ", ".join(f"{self.count(r)} {r}" for r in (AGREES, DIFFERS, UNCHECKED))
        return terminal.text(table, counts)


def unlike(precision: str | None, place: torch.device) -> str:
    """Say why a result of this precision cannot be compared on this device; empty where it can."""
    if precision not in PRECISIONS:
        return "it does not say in which precision it was made"
    if precision == "bfloat16" and not computes_bf16(place):
        return (
            f"made in bfloat16, which this {place.type} does not compute in; precisions are not"
            " compared with each other"
        )
    return ""


def compared(
    value: float, recorded: float, place: torch.device, precision: torch.dtype
) -> tuple[bool, str]:
    """Return whether two scores are the same, and by how much they may differ, in words."""
    tolerance = tolerance_of(precision, abs(recorded))
    words = (
        f"score {value:.6g}, kept {recorded:.6g}, tolerance {tolerance:.2g} ({place.type},"
        f" {str(precision)[6:]})"
    )
    return abs(value - recorded) <= tolerance, words


def tolerance_of(precision: torch.dtype, size: float) -> float:
    """Return the largest difference that counts as the same."""
    return (BFLOAT16 if precision == torch.bfloat16 else FLOAT32) * max(1.0, size)
