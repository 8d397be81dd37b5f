"""Files, tables and cases to make manifests of."""

from __future__ import annotations

from pathlib import Path

from pseudohealthy.data.manifest import Case, Manifest


def touch(folder: Path, *names: str, content: str | None = None) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name if content is None else content)


def table(
    folder: Path, *rows: str, header: str = "case_id,patient_id,split,label,image,mask"
) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *rows]), encoding="utf-8")
    return path


def cases_of(folder: Path, count: int, label=lambda i: None, site=lambda i: "") -> Manifest:
    return Manifest(
        [
            Case(f"c{i}", f"p{i // 2}", "", label(i), f"{i}.png", site=site(i), root=folder)
            for i in range(count)
        ],
        folder,
    )
