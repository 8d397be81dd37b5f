"""Text of DICOM headers: which characters its bytes mean, and the character set that it is written
in again.

The header names its character set (PS3.3 C.12.1.1.2), and scanners, gateways and scripts name it
wrongly. What the header says is believed as long as the bytes agree; else they are UTF-8 where they
are valid UTF-8, and Latin-1 where not. Then Latin-1 is a guess, but one that leaves every byte as
it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydicom.charset import convert_encodings, decode_bytes, encode_string, python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.valuerep import PersonName

LATIN_1, UTF_8 = ("ISO_IR 100",), ("ISO_IR 192",)
LATIN_9 = "ISO_IR 203"  # a term of the standard that pydicom does not know
RESETTING = {ord(c) for c in "^=\\\r\n\f\t"}  # characters after which the first set holds again
ALONE = ("ISO_IR 192", "GB18030", "GBK")  # never with others
# Sets of several bytes, reached by escape sequences alone.
ONLY_EXTENSIONS = ("58", "87", "149", "159")
SPELLINGS = (
    (re.compile(r"ISO2022IR(\d+)"), r"ISO 2022 IR \1"),
    (re.compile(r"ISOIR(\d+)"), r"ISO_IR \1"),
    (re.compile(r"UTF8"), "ISO_IR 192"),
    (re.compile(r"(ISO)?88591|LATIN1"), "ISO_IR 100"),
    (re.compile(r"(GB18030|GBK)"), r"\1"),
)


def charset(declared: Sequence[str], texts: Sequence[bytes]) -> tuple[tuple[str, ...], str]:
    """The defined terms in which these texts are read, and what was wrong with the declared ones
    ("" if nothing).

    Args:
        declared: values of SpecificCharacterSet as the header has them; empty where it has none.
        texts: every value that will be written, as stored.
    """
    given = tuple(term.strip() for term in declared)
    terms, named = defined(given), any(given)
    if all(text.isascii() and b"\x1b" not in text for text in texts):
        kept = terms if terms is not None and terms == given and terms != ("",) else ()
        wrong = named and kept != given
        return (
            kept,
            "its character set is no defined term and left out, as the text is ASCII"
            if wrong
            else "",
        )
    if terms is not None and agrees(texts, terms):
        return terms, "" if terms == given else f"its character set read as '{shown(terms)}'"
    guess = next(
        guess for guess in (escaped(texts), UTF_8, LATIN_1) if guess and agrees(texts, guess)
    )
    what = (
        "its text is not in the character set it names"
        if named
        else "its text names no character set"
    )
    return guess, f"{what}, read as '{shown(guess)}'"


def defined(given: tuple[str, ...]) -> tuple[str, ...] | None:
    """The values as defined terms, spelling repaired; None where one of them is none."""
    terms = [spelled(term) for term in given] or [""]
    if len(terms) == 1 and terms[0].rpartition(" ")[2] in ONLY_EXTENSIONS:
        terms = ["", f"ISO 2022 IR {terms[0].rpartition(' ')[2]}"]
    if terms == ["ISO_IR 6"]:
        terms = [""]
    if len(terms) > 1:
        terms = [
            term.replace("ISO_IR ", "ISO 2022 IR ") if term not in ALONE else term for term in terms
        ]
        if any(term in ALONE or (not term and k) for k, term in enumerate(terms)):
            return None
    known = all(not term or term == LATIN_9 or term in python_encoding for term in terms)
    return tuple(terms) if known else None


def spelled(term: str) -> str:
    """The defined term that is meant, or the term as it is."""
    bare = re.sub(r"[\s_.\-]", "", term.upper())
    for pattern, meant in SPELLINGS:
        if match := pattern.fullmatch(bare):
            return match.expand(meant)
    return term


def escaped(texts: Sequence[bytes]) -> tuple[str, ...]:
    """The terms that the escape sequences in the texts belong to."""
    codes = {b"\x1b$B": "87", b"\x1b$)C": "149", b"\x1b$(D": "159", b"\x1b$)A": "58"}
    found = [f"ISO 2022 IR {n}" for code, n in codes.items() if any(code in text for text in texts)]
    return ("", *found) if found else ()


def agrees(texts: Sequence[bytes], terms: tuple[str, ...]) -> bool:
    """Whether all texts are text in these terms: every byte has a meaning, and none is a control
    character."""
    try:
        read = [decode(text, terms) for text in texts]
    except (UnicodeError, LookupError):
        return False
    strange = re.compile("[\x80-\x9f\ufffd\x1b]" if terms != LATIN_1 else "[\x80-\x9f\ufffd]")
    return terms == LATIN_1 or not any(strange.search(text) for text in read)


def decode(text: bytes, terms: tuple[str, ...]) -> str:
    """Raises UnicodeError where the bytes are no text in these terms."""
    if terms == (LATIN_9,):
        return text.decode("iso8859_15")
    encodings = convert_encodings(list(terms) or [""])
    if len(encodings) == 1 and terms != ("ISO 2022 IR 13",):
        ascii_only = terms in ((), ("",), ("ISO 2022 IR 6",))
        return text.decode("ascii" if ascii_only else encodings[0])
    read = decode_bytes(text, encodings, RESETTING)
    # pydicom leaves this escape sequence in.
    return read.replace("\x1b$)A", "") if "ISO 2022 IR 58" in terms else read


def writable(values: Mapping[str, str], terms: tuple[str, ...]) -> tuple[str, ...]:
    """These terms where the values (by keyword) can be written in them and read again, else
    UTF-8."""
    encodings = convert_encodings(list(terms) or [""])
    try:
        for keyword, value in values.items():
            if value.isascii():
                continue
            name = dictionary_VR(keyword) == "PN"
            stored = (
                PersonName(value).encode(encodings) if name else encode_string(value, encodings)
            )
            if decode_bytes(stored, encodings, RESETTING) != value:
                return UTF_8
    except (UnicodeError, LookupError, ValueError):
        return UTF_8
    return terms


def shown(terms: Sequence[str]) -> str:
    return "\\".join(terms)
