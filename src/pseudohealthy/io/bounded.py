"""Bytes of files that may lie: reads that reserve no more than there is, and what a file really
is."""

from __future__ import annotations

import io
import os
from pathlib import Path

DEFLATE = 1100  # bytes that one of a file can stand for at most; deflate makes 1032 of it


class Bounded(io.BufferedReader):
    """``open(path, "rb")``, but a large ``read(size)`` asks for the bytes that are left, so that a
    length of 4 GB in a file of 1 kB costs nothing: the standard reader reserves the size it is
    asked for."""

    def __init__(self, path: Path | str):
        super().__init__(io.FileIO(path))
        self.size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > 2**16:
            size = max(0, min(size, self.size - self.tell()))
        return super().read(size)


def looks_like(raw: bytes) -> str:
    """What a file that is no image seems to be, in brackets."""
    start = raw[:200].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return " (it looks like HTML: a web page was saved instead)"
    if start.startswith(b"version https://git-lfs"):
        return " (it is a Git LFS pointer: run git lfs pull)"
    return ""


def blank(path: Path) -> bool:
    """Whether a file is what an interrupted copy leaves of one: too short for DICOM's magic word,
    or zeros up to it."""
    with open(path, "rb") as file:
        start = file.read(132)
    return len(start) < 132 or not any(start)
