"""What a run folder holds, in plain sentences: whoever hands it on must know whose images and ids go with it."""

from __future__ import annotations

from pseudohealthy.runs.pseudonyms import RECORD
from pseudohealthy.runs.run import Run

PICTURES = "diagnostics_epoch_*.png"


def holdings(run: Run) -> list[str]:
    """Lines of MODEL_CARD.md about images, ids and names in the run folder."""
    pseudonyms = bool(run.record.get(RECORD))
    ids = (
        "pseudonyms, which only the salt beside this folder can tell" if pseudonyms else "ids as they stand in the data"
    )
    planes = any((run.folder / "planes").glob("*/planes.npy"))
    pictures = any(run.folder.glob(PICTURES))
    return [
        "## What this folder holds",
        "",
        "- Images: " + ("**`planes/` holds every image it was trained and tested on (made by version 0.1): remove it.**"
                        if planes else "those it was trained on do not lie here.")
        + (f" `{PICTURES}` show a few validation images." if pictures else ""),
        f"- Patients: `split.csv` lists cases and patients of training, validation and test: {ids}. `run.json` names one case "
        "and the folder of the data.",
        "- `fingerprint.json` has blurred thumbnails of 32 px, means of training planes, to tell scans of another kind.",
        "- Everything else is numbers: weights, thresholds, statistics. Weights can hold what they were trained on.",
    ]  # fmt: skip
