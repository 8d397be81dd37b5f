"""Single values of DICOM attributes, put right where they are malformed and clear, left out where
they are not."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any

from pydicom.datadict import dictionary_VR

# Characters that a value may have, for attributes whose text is cut there; identifiers are never
# cut, see `text`
LONGEST = {"LO": 64, "SH": 16, "PN": 64, "CS": 16, "ST": 1024, "LT": 10240}
WHO = "PatientID"  # says who it is: kept as it stands, however long
NEVER_CUT = ("AccessionNumber", "StudyID", "IssuerOfPatientID")
SEXES = {"MALE": "M", "FEMALE": "F", "OTHER": "O", "M": "M", "F": "F", "O": "O"}
REWRITTEN = "is not written as the standard has it, rewritten"
LEFT_OUT = "is malformed, left out"
SHORTENED = "is too long, cut"
FIRST = "has several values, the first is kept"


def plain(value: Any) -> bytes:
    """A value that pydicom has read, as bytes again."""
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        return b"\\".join(plain(part) for part in value)
    original = getattr(value, "original_string", None)
    return (
        original
        if isinstance(original, bytes)
        else str(original or value).encode("utf-8", "replace")
    )


def repaired(keyword: str, value: str) -> tuple[Any, str]:
    """A single value as the standard has it, and what was wrong ("" if nothing); None: left out."""
    vr, more = dictionary_VR(keyword), ""
    if vr not in ("LT", "ST", "UT"):
        value, _, more = value.partition("\\")
    form = FORMS.get(vr, lambda keyword, value: text(keyword, vr, value))
    made, wrong = form(keyword, value.strip())
    return made, wrong or (FIRST if more.strip("\\ ") else "")


def date(_: str, value: str) -> tuple[str | None, str]:
    """YYYYMMDD; the old YYYY.MM.DD and YYYY-MM-DD are the same date, other orders are a guess."""
    match = re.fullmatch(r"(\d{4})([.\-/]?)(\d{2})\2(\d{2})", value)
    try:
        made = f"{datetime.date(*(int(match[k]) for k in (1, 3, 4))):%Y%m%d}" if match else None
    except ValueError:
        made = None
    if made is None:
        return None, LEFT_OUT
    return made.zfill(8), "" if made.zfill(8) == value else REWRITTEN


def time(_: str, value: str) -> tuple[str | None, str]:
    """HHMMSS.F; the old HH:MM:SS is the same time."""
    match = re.fullmatch(r"(\d{2})(?::?([0-5]\d)(?::?([0-5]\d|60)(\.\d{1,6})?)?)?", value)
    if match is None or int(match[1]) > 23:
        return None, LEFT_OUT
    made = "".join(part or "" for part in match.groups())
    return made, "" if made == value else REWRITTEN


def age(_: str, value: str) -> tuple[str | None, str]:
    """042Y; without its unit a number is no age."""
    match = re.fullmatch(r"(\d{1,3}) ?([DWMYdwmy])", value)
    if match is None:
        return None, LEFT_OUT
    made = f"{int(match[1]):03d}{match[2].upper()}"
    return made, "" if made == value else REWRITTEN


def number(_: str, value: str) -> tuple[str | None, str]:
    """A decimal number of at most 16 characters; a comma is the point."""
    try:
        found = float(value.replace(",", "."))
    except ValueError:
        return None, LEFT_OUT
    if found != found or found in (float("inf"), float("-inf")):
        return None, LEFT_OUT
    if len(value) <= 16 and re.fullmatch(r"[+\-]?(\d+\.?\d*|\.\d+)([eE][+\-]?\d+)?", value):
        return value, ""
    return f"{found:.10g}", REWRITTEN


def code(keyword: str, value: str) -> tuple[str | None, str]:
    """Capitals, digits, space and underscore, at most 16."""
    made: str | None = value.upper().strip()
    if keyword == "PatientSex":
        made = SEXES.get(value.upper())
    elif keyword == "PatientIdentityRemoved":
        made = made if made in ("YES", "NO") else None
    if not made or not re.fullmatch(r"[A-Z0-9_ ]{1,16}", made):
        return None, LEFT_OUT
    return made, "" if made == value else REWRITTEN


def text(keyword: str, vr: str, value: str) -> tuple[str | None, str]:
    """Without control characters, and as long as the standard allows. Who it is, is never cut to be
    somebody else."""
    made = "".join(c if c.isprintable() or c == "\x1b" else " " for c in value).strip()
    wrong = "" if made == value.strip() else "has control characters, left out"
    most = LONGEST.get(vr, 64)
    groups = made.split("=") if vr == "PN" else [made]
    if len(groups) > 3 or max(map(len, groups)) > most:
        if keyword == WHO:
            return made, "is longer than the standard allows, kept as it says who it is"
        if keyword in NEVER_CUT:
            return None, "is longer than the standard allows, left out"
        return "=".join(group[:most].strip() for group in groups[:3]), SHORTENED
    return made or None, wrong


FORMS: dict[str, Callable[[str, str], tuple[Any, str]]] = {
    "DA": date,
    "TM": time,
    "AS": age,
    "DS": number,
    "CS": code,
}
