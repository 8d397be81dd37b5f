"""What a Python program does with a training while it runs: log, plot, stop early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OnStep = Callable[[int, dict[str, float]], Any]
OnValidation = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Hooks:
    """Functions that are called in the first process; one that returns True ends the training.

    Args:
        on_step: Called after each step with its number, from 1, and the loss of each part.
        on_validation: Called after each validation with the entry of training_history.json.
    """

    on_step: OnStep | None = None
    on_validation: OnValidation | None = None

    def step(self, step: int, values: dict[str, float], first: bool) -> bool:
        """Whether the training is to end with this step."""
        return bool(first and self.on_step is not None and self.on_step(step, dict(values)) is True)

    def validation(self, entry: dict[str, Any], first: bool) -> bool:
        """Whether the training is to end with this validation."""
        asked = self.on_validation
        return bool(first and asked is not None and asked(dict(entry)) is True)
