"""Colours have one home, and text on them can be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pseudohealthy
from pseudohealthy.design import css, tokens

SRC = Path(pseudohealthy.__file__).parent


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["text", "quiet", "accent", "ok", "warn", "fail"])
def test_text_stands_out_from_both_grounds(theme, name):
    colours = tokens(theme)
    assert min(contrast(colours[name], colours[on]) for on in ("ground", "raised")) >= 4.5


def test_both_themes_name_the_same_colours():
    assert list(tokens("light")) == list(tokens("dark")) and len(tokens("methods")) == 6
    with pytest.raises(KeyError):
        tokens("twilight")


def test_no_other_file_of_the_package_holds_a_colour():
    files = [path for kind in ("py", "css", "js", "j2") for path in SRC.rglob(f"*.{kind}")]
    own = [path for path in files if "vendor" not in path.parts and path.name != "tokens.css"]
    found = [path.name for path in own if re.search(r"#[0-9a-fA-F]{6}\b", path.read_text("utf-8"))]
    assert len(own) > 200 and not found
    assert "#d55e00" in css()
