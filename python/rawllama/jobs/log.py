"""What a job has done, in a file that only grows: a line an entry, each with its checksum."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from rawllama.errors import InvalidArgumentError

from .system import naming, sync_folder

Entry = dict[str, Any]


class Log:
    """A log of entries. What `append` has returned for is on the disk.

    A line that was being written when the process ended is no entry; it is cut off.

    Parameters
    ----------
    path
        The file, which `create` makes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end = 0

    def create(self, first: Entry) -> None:
        """Begin with this entry: the file appears with it, or not at all."""
        temporary = self.path.with_suffix(".tmp")
        with naming(temporary), temporary.open("wb") as file:
            self._end = file.write(_line(first))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        sync_folder(self.path.parent)

    def read(self) -> list[Entry]:
        """All entries; none where there is no file.

        Raises
        ------
        InvalidArgumentError
            It is damaged in its middle.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        lines = data.split(b"\n")
        entries = []
        self._end = 0
        for number, line in enumerate(lines[:-1], 1):
            entry = _entry(line)
            if entry is None:
                if number == 1 or number < len(lines) - 1:
                    raise InvalidArgumentError(f"{self.path}, line {number}: it is damaged; start anew with --restart")
                break
            entries.append(entry)
            self._end += len(line) + 1
        return entries

    def append(self, entry: Entry) -> None:
        """Add an entry behind those that `read` gave."""
        with naming(self.path), self.path.open("r+b") as file:
            file.truncate(self._end)
            file.seek(self._end)
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())
            self._end = file.tell()


def _line(entry: Entry) -> bytes:
    text = json.dumps(entry, ensure_ascii=True, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _entry(line: bytes) -> Entry | None:
    """What a line says, None if it is not whole."""
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    entry: Entry = json.loads(text)
    return entry
