"""case.html: input, healthy twin and anomaly map of one case in a browser; one file, offline.

Volumes are drawn by NiiVue (WebGL2, carried inside the page), single planes, and volumes where
there is no WebGL2, on a plain canvas. The policy allows two scripts by their hash and nothing from
outside; what comes from the case is escaped text or inert data.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pseudohealthy import design
from pseudohealthy.counts import many
from pseudohealthy.detection.output_layout import relative
from pseudohealthy.io.atomic import write_text
from pseudohealthy.report.case_volumes import counts, display, presets, thresholds
from pseudohealthy.report.panel import orientation, starting_window

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pseudohealthy.detection.finding import Finding
    from pseudohealthy.detection.outputs import Target

LIBRARY = "niivue-0.69.0.umd.js.gz"
MEGABYTES = 9.5  # of a page, so that it can be mailed
VIEWS = ("axial", "coronal", "sagittal")


def save(finding: Finding, to: Target) -> dict[str, Path]:
    """Write case.html of a case, with links to what was written before; see `detection.outputs`."""
    case = to.place.case
    files = {name: path.name for name, path in to.paths.items() if path.is_file()}
    # A command writes one.
    report = relative(to.folder / "report.html", case) if finding.hashes else ""
    panel = to.paths.get("panel")
    return {
        "html": case_page(
            finding, case / "case.html", truth=to.truth, picture=panel, files=files, report=report
        )
    }


def case_page(
    finding: Finding,
    path: Path | str,
    *,
    truth: np.ndarray | None = None,
    picture: Path | None = None,
    files: Mapping[str, str] | None = None,
    report: str = "",
) -> Path:
    """Write the page of a finding, less than 10 MB.

    Volumes above a threshold are counted in the full map, whatever the resolution of the pictures;
    regions away from the finding's own threshold are found in the page.

    Args:
        finding: the case.
        path: of the page.
        truth: reference (D, H, W) bool, drawn as an outline.
        picture: the panel, embedded for machines without WebGL2 and without scripts.
        files: name -> file name beside the page, linked.
        report: the page of all findings, relative to this one, linked.
    """
    scan = finding.scan
    volume = finding.map.shape[0] > 1
    style, script = design.css() + _template("case.css"), _script()
    packed, library_hash = _library() if volume else ("", "")
    mosaic = (
        base64.b64encode(picture.read_bytes()).decode()
        if picture is not None and picture.is_file()
        else ""
    )
    window = starting_window(finding)
    room = MEGABYTES - (len(packed) + len(mosaic) + len(script) + len(style)) / 1e6 - 0.1
    copy = display(finding, truth, window, room)
    steps = thresholds(finding)
    threshold = finding.threshold
    spacing = scan.spacing
    letters = orientation(scan.affine) if scan.affine is not None else None
    data = {
        "volume": volume,
        "shape": copy.shape,
        "origin": copy.origin,
        "factor": copy.factor,
        "affine": copy.affine.tolist(),
        "inverse": np.linalg.inv(copy.affine).tolist(),
        "geometry": scan.affine is not None,
        "view": _view(copy.affine),
        "aspect": 1.0 if spacing is None else spacing[1] / spacing[2],
        "letters": letters,
        "thresholds": steps.tolist(),
        "counts": counts(finding),
        "start": len(steps) - 1
        if threshold is None or threshold < 0
        else int(np.abs(steps - threshold).argmin()),
        "top": 2 * threshold if threshold is not None and threshold > 0 else 1.0,  # as in the panel
        "ml": scan.voxel_ml if volume else None,
        "unit": "voxels" if volume else "pixels",
        "windows": presets(finding, window),
        "grey": scan.units,
        "plane_scores": [round(float(score), 6) for score in finding.plane_scores],
        "first": [int(v) for v in np.unravel_index(int(finding.map.argmax()), finding.map.shape)],
        "regions": [
            {"text": _region(region, volume), **_index(region)} for region in finding.regions
        ],
        "policy": library_hash,
    }
    page = (
        Environment(
            autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        .from_string(_template("case.html.j2"))
        .render(
            title=finding.case_id,
            csp=_policy(style, script, library_hash),
            style=Markup(style),
            script=Markup(script),
            facts=_facts(finding)
            | ({} if truth is None else {"beside the reference": finding.beside(truth).text()}),
            warnings=list(finding.warnings),
            source=finding.threshold_source
            or ("given" if threshold is not None else "none stored"),
            own=threshold,
            report=quote(report),
            notes=copy.notes,
            files=[(name, quote(file)) for name, file in (files or {}).items()],
            data=data,
            volumes=copy.volumes,
            library=packed,
            mosaic=mosaic,
            has_truth=truth is not None,
            volume=volume,
            views=VIEWS,
        )
    )
    return write_text(path, page)


def _script() -> str:
    parts = ("case", "case_regions", "case_plane", "case_volume", "case_controls")
    return "".join(_template(f"{part}.js") for part in parts)


def _template(name: str) -> str:
    return (resources.files("pseudohealthy.report") / "templates" / name).read_text("utf-8")


@lru_cache(maxsize=1)
def _library() -> tuple[str, str]:
    """Return the base64 of the gzipped library, and the sha256 of its text as a policy writes
    it."""
    packed = (resources.files("pseudohealthy.report") / "vendor" / LIBRARY).read_bytes()
    return base64.b64encode(packed).decode(), _sha256(gzip.decompress(packed))


def _sha256(text: bytes) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text).digest()).decode()


def _policy(style: str, script: str, library_hash: str) -> str:
    """Allow our style, our script, the library and pictures inside the page, and no connection."""
    scripts = f"'{_sha256(script.encode())}'" + (f" '{library_hash}'" if library_hash else "")
    return (
        f"default-src 'none'; img-src data: blob:; style-src '{_sha256(style.encode())}'; "
        f"script-src {scripts}; base-uri 'none'; form-action 'none'"
    )


def _view(affine: np.ndarray) -> str:
    """Return the view that shows the planes as they were taken."""
    return ("sagittal", "coronal", "axial")[
        int(np.argmax(np.abs(affine[:3, 0]) / np.linalg.norm(affine[:3, 0])))
    ]


def _facts(finding: Finding) -> dict[str, str]:
    scan, record = finding.scan, finding.made
    facts = {"score": f"{finding.score:.4g}"}
    if finding.rank:
        facts["among healthy scans"] = finding.rank
    facts["size"] = " x ".join(str(n) for n in scan.shape[1:] if n > 1)
    if scan.spacing is not None:
        facts["spacing"] = (
            " x ".join(f"{n:.3g}" for n in scan.spacing[-len(facts["size"].split(" x ")) :]) + " mm"
        )
    facts["type"] = scan.kind + (f", {scan.units}" if scan.units else "")
    if record.get("run"):
        facts["run"] = str(record["run"]) + (
            f", {record['restorer']}" if record.get("restorer") else ""
        )
    if record.get("weights_sha256"):
        facts["weights"] = str(record["weights_sha256"])[:12]
    return facts


def _region(region: Mapping[str, Any], volume: bool) -> str:
    if not volume:
        return (
            f"row {region['row'] + 1}, column {region['column'] + 1}:"
            f" {many(region['voxels'], 'pixel')}, peak {region['peak']:.3g}"
        )
    size = (
        f"{region['volume_ml']:.3g} ml"
        if "volume_ml" in region
        else f"{many(region['voxels'], 'voxel')}"
    )
    return f"plane {region['plane'] + 1}: {size}, peak {region['peak']:.3g}"


def _index(region: Mapping[str, Any]) -> dict[str, int]:
    return {axis: int(region[axis]) for axis in ("plane", "row", "column")}
