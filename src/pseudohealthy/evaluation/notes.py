"""Notes of an evaluation, each told once."""

from __future__ import annotations

from collections.abc import Sequence


def told_once(notes: Sequence[str], methods: Sequence[str]) -> list[str]:
    """Merge equal notes of several methods into one, which names them unless all have it."""
    saying: dict[str, list[str]] = {}
    for note in notes:
        method = max((m for m in methods if note.startswith(f"{m}: ")), key=len, default="")
        saying.setdefault(note.removeprefix(f"{method}: ") if method else note, []).append(method)
    merged = []
    for text, methods_of in saying.items():
        names = [name for name in dict.fromkeys(methods_of) if name]
        everyone = len(names) > 1 and len(names) == len(methods)
        merged.append(f"{', '.join(names)}: {text}" if names and not everyone else text)
    return merged
