"""Files of a browser, straight to disk: a multipart body is parsed as it arrives, and counted;
memory stays flat."""

from __future__ import annotations

import asyncio
import re
import unicodedata
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from pseudohealthy.counts import many
from pseudohealthy.io.discover import kind_of

FILES = 20_000  # of one upload, as of a DICOM series
PATIENCE = 60.0  # seconds without a byte, after which an upload is given up
DEEP = 8  # folders kept of a name, those nearest to the file
FIELD = 300  # bytes of a value that is no file
SYSTEM = ("thumbs.db", "desktop.ini")
NOWHERE = re.compile(r"\.{0,2}|[A-Za-z]:")  # parts of a path that are no folder below another
# Names that Windows keeps for itself.
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.I)


class Refused(Exception):
    """An upload that is not taken: HTTP status, and why in one line."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status, self.text = status, text


def base_name(name: str) -> str:
    """What is kept of a file name: its last part, in harmless characters, at most 120 bytes, its
    end kept for the type; empty for hidden and system files."""
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    if last.startswith(".") or last.lower() in SYSTEM:
        return ""
    clean = re.sub(r"[^\w.\-+]+", "_", last).lstrip("-.") or "file"
    clean = clean.encode("utf-8", "ignore")[-120:].decode("utf-8", "ignore").lstrip("-.")
    return f"_{clean}" if RESERVED.match(clean) else clean


def parts(name: str) -> tuple[str, ...]:
    """Of a name with its folders those and the file, each as `base_name` keeps it; empty for files
    that are hidden, or lie in a hidden folder."""
    *folders, last = [part for part in re.split(r"[/\\]", name) if not NOWHERE.fullmatch(part)] or [
        name
    ]
    kept = [base_name(part) for part in (*folders[-DEEP:], last)]
    return tuple(kept) if all(kept) and "__MACOSX" not in kept else ()


def title(folder: Path, files: list[str]) -> str:
    """What a job is called: its files, unless one is DICOM or a zip that may hold it, whose name
    may be a patient's."""
    kinds = (kind_of(path) for path in folder.rglob("*") if path.is_file())
    private = next((kind for kind in kinds if kind in ("dicom", "zip")), "")
    if not private:
        return files[0] + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    what = {"dicom": "DICOM", "zip": "zip"}[private]
    return f"a {what} file" if len(files) == 1 else f"{many(len(files), 'file')} ({what})"


class Receiver:
    """Parts of a multipart body: files into `folder` with the folders they lie in, everything else
    into `fields`; names: of the files, with their folders."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.fields: dict[str, str] = {}
        self.names: list[str] = []
        self.ignored = 0
        self.finished = False
        # Names as a file system sees them that does not know upper case.
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = b"", b""
        self._file: IO[bytes] | None = None
        self._field: str | None = None
        self._text = b""

    def parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._add_name,
                "on_header_value": self._add_value,
                "on_header_end": self._header,
                "on_headers_finished": self._open,
                "on_part_data": self._data,
                "on_part_end": self._close,
                "on_end": self._end,
            },
        )  # type: ignore[typeddict-unknown-key]

    def _begin(self) -> None:
        self._headers, self._name, self._value = {}, b"", b""

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._field, self._text = None, b""
        if b"filename" not in options:
            self._field = options.get(b"name", b"").decode("utf-8", "replace")[:FIELD]
            if len(self.fields) >= 20:
                raise Refused(400, "too many fields")
            return
        place = parts(options[b"filename"].decode("utf-8", "replace"))
        if not place:
            self.ignored += 1
            return
        if len(self.names) >= FILES:
            raise Refused(413, f"at most {FILES} files at once; a zip counts as one")
        self.names.append("/".join(place))
        path = self.folder.joinpath(*self._free(place))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "xb")  # noqa: SIM115 - closed at the end of the part

    def _free(self, place: tuple[str, ...]) -> tuple[str, ...]:
        """A place where nothing lies yet, nor a file where it needs a folder: this one, or one with
        a number before it."""
        tried, number = place, len(self.names)
        while True:
            *folders, last = ["/".join(tried[: n + 1]).casefold() for n in range(len(tried))]
            if last not in self._files | self._folders and not self._files & set(folders):
                self._files.add(last)
                self._folders.update(folders)
                return tried
            tried, number = (f"{number}-{place[0]}", *place[1:]), number + 1

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
        elif self._field is not None:
            self._text += data[start:end]
            if len(self._text) > FIELD:
                raise Refused(400, "a field is too long")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        elif self._field is not None:
            self.fields[self._field] = self._text.decode("utf-8", "replace")

    def _end(self) -> None:
        self.finished = True

    def abandon(self) -> None:
        """Close what is open; the folder goes with its job."""
        if self._file is not None:
            self._file.close()
            self._file = None


async def receive(request: Request, folder: Path, most: int) -> tuple[Receiver, int]:
    """The parts of a request in `folder`, and how many bytes came. Refused (400, 408, 413, 507) for
    what is not taken."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Refused(415, "send files as multipart/form-data")
    receiver, size = Receiver(folder), 0
    stream = request.stream().__aiter__()
    try:
        parser = receiver.parser(options[b"boundary"])
        while True:
            try:
                block = await asyncio.wait_for(anext(stream), PATIENCE)
            except StopAsyncIteration:
                break
            size += len(block)
            if size > most:
                raise Refused(413, f"at most {most / 2**30:.3g} GiB at once; see --most-gb")
            if block:
                parser.write(block)
    except TimeoutError:
        raise Refused(408, "nothing came for a minute") from None
    except (FormParserError, ClientDisconnect):
        raise Refused(400, "the upload is damaged or was cut off") from None
    except OSError as error:
        raise Refused(507, f"cannot keep the upload: {error.strerror}") from None
    finally:
        receiver.abandon()
    if not receiver.finished:
        raise Refused(400, "the upload is damaged or was cut off")
    return receiver, size
