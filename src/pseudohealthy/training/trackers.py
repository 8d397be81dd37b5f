"""Optional copies of the history for trackers; `training_history.json` is always there and needs
none of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pseudohealthy.errors import USAGE, Fault


class Sink:
    """A tracker that takes entries of the history one at a time; this one ignores them."""

    def write(self, entry: dict[str, Any]) -> None:
        """Take one entry: numbers by name, with ``step``."""

    def close(self) -> None:
        """End the tracking, after the last entry."""


class TensorBoard(Sink):
    def __init__(self, folder: Path):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def write(self, entry: dict[str, Any]) -> None:
        for key, value in entry.items():
            if isinstance(value, (int, float)) and key != "step":
                self.writer.add_scalar(key, value, entry["step"])
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class MLflow(Sink):
    def __init__(self, folder: Path):
        import mlflow

        self.mlflow = mlflow
        # Beside the run, never a server by default.
        mlflow.set_tracking_uri(f"sqlite:///{folder.resolve() / 'mlflow.db'}")
        mlflow.set_experiment("pseudohealthy")
        mlflow.start_run(run_name=folder.name)

    def write(self, entry: dict[str, Any]) -> None:
        numbers = {
            k: float(v) for k, v in entry.items() if isinstance(v, (int, float)) and k != "step"
        }
        self.mlflow.log_metrics(numbers, step=entry["step"])

    def close(self) -> None:
        self.mlflow.end_run()


def open_sink(kind: str, folder: Path) -> Sink:
    """The tracker of a kind: "none", "tensorboard" or "mlflow".

    Raises:
        Fault: TRACK (exit 2) for another kind, or when its package is absent.
    """
    kinds: dict[str, Callable[[Path], Sink]] = {
        "none": lambda folder: Sink(),
        "tensorboard": TensorBoard,
        "mlflow": MLflow,
    }
    if kind not in kinds:
        raise Fault(
            "TRACK", f"there is no sink '{kind}'", f"one of: {', '.join(kinds)}", exit=USAGE
        )
    try:
        return kinds[kind](folder)
    except ImportError:
        raise Fault(
            "TRACK", f"{kind} is not installed", "pip install 'pseudohealthy[track]'", exit=USAGE
        ) from None
