"""What a job has done so far: parts on the disk, files put out, and the log that says which of them count."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rawllama.errors import InvalidArgumentError

from .log import Entry, Log
from .system import sync_folder
from .target import LOG, Target

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

LOCK = "lock"
_TEMPORARY = ".tmp"


@dataclass(frozen=True)
class Part:
    """Rows that are computed: input rows `first` to `end`, of which `rows` are in the file.

    `skipped` of the input rows have no vector; `tokens` were computed for the others.
    """

    file: str
    first: int
    end: int
    rows: int
    skipped: int
    tokens: int
    size: int


@dataclass(frozen=True)
class Output:
    """A file that is put out, with all rows before the input row `end` that no other has; "" is the output itself."""

    name: str
    end: int
    rows: int


class State:
    """The state of a job, in the folder `target.work`. All of it is on the disk.

    Parameters
    ----------
    target
        The output.

    Attributes
    ----------
    header
        What the job was started with; None if it was not.
    parts, outputs
        What is done, in the order of the rows.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._log = Log(target.work / LOG)
        self._is_stale = False
        self.header: Entry | None = None
        self.parts: list[Part] = []
        self.outputs: list[Output] = []

    def require_own(self) -> None:
        """Raise InvalidArgumentError if the folder is not one of a job's, as everything in it may be removed."""
        if self._log.path.exists():
            return
        others = [path.name for path in self._target.work.iterdir() if not _is_own(path.name)]
        if others:
            words = f"it has other files ({min(others)}); remove or rename it"
            raise InvalidArgumentError(f"{self._target.work}: the job keeps its parts there, and {words}")

    def forget(self) -> None:
        """Let what a process before this one has left be removed when the next job starts, and not before.

        Raises
        ------
        InvalidArgumentError
            It is what another output is made of.
        """
        self._is_stale = self._log.path.exists()
        if self._target.place:
            entries = self._log.read()
            self._require_place(entries[0] if entries else None)

    def load(self) -> None:
        """Read what a process before this one has left, and remove what it had not finished.

        Raises
        ------
        InvalidArgumentError
            A part is missing, or the log is damaged, or another output's.
        """
        entries = self._log.read()
        self.header = entries.pop(0) if entries else None
        self._require_place(self.header)
        for entry in entries:
            kind = entry.pop("entry")
            if kind == "part":
                self.parts.append(Part(**entry))
            elif kind == "output":
                self.outputs.append(Output(**entry))
            elif self.header is not None:
                self.header["settings"] |= entry
        if missing := self._target.missing([output.name for output in self.outputs]):
            raise InvalidArgumentError(f"{self._target.name}: its file {missing} is gone; start anew with --restart")
        if not self.has_work:
            self.clear()
        self._tidy()

    @property
    def has_work(self) -> bool:
        """Whether there is anything that would be lost."""
        return bool(self.parts or self.outputs or self._is_stale)

    @property
    def done(self) -> int:
        """Input rows that are computed."""
        return self.parts[-1].end if self.parts else 0

    @property
    def written(self) -> int:
        """Input rows that are put out."""
        return self.outputs[-1].end if self.outputs else 0

    @property
    def is_complete(self) -> bool:
        """Whether everything is put out."""
        assert self.header is not None
        return bool(self.outputs) and (not self._target.is_folder or self.written == sum(self.header["rows"]))

    def waiting(self) -> list[Part]:
        """Parts that are computed and not put out."""
        return [part for part in self.parts if part.first >= self.written]

    def start(self, header: Entry) -> None:
        """Begin a job."""
        if self._is_stale:
            self.clear()
            self._is_stale = False
        header = {**header, "place": self._target.place}
        self._log.create(header)
        self.header = header

    def change(self, settings: Entry) -> None:
        """Go on with other settings, such as what is done does not depend on."""
        if settings:
            assert self.header is not None
            self._log.append({"entry": "settings", **settings})
            self.header["settings"] |= settings

    def clear(self) -> None:
        """Remove all that a job before has left, the files that it put out into the folder too."""
        if self._log.path.exists():  # else they are somebody else's
            self._target.withdraw()
        self.header, self.parts, self.outputs = None, [], []
        for path in self._target.work.iterdir():
            if path.name not in (LOCK, LOG):
                _remove(path)
        self._log.path.unlink(missing_ok=True)  # at last: who finds none takes the folder for somebody else's

    def temporary(self, name: str) -> Path:
        """Path of a file that does not count until it is renamed."""
        path = self._target.work / f"{name}{_TEMPORARY}"
        _remove(path)
        return path

    def add_part(self, made: Path, part: Part) -> None:
        """What was made, and is on the disk, becomes a part."""
        made.replace(self._target.work / part.file)
        sync_folder(self._target.work)
        self._append("part", part)
        self.parts.append(part)

    def add_output(self, made: Path, output: Output) -> None:
        """What was made of the parts that wait takes its place; they go."""
        self._target.publish(made, output.name or None)
        self._append("output", output)
        self.outputs.append(output)
        self._tidy()

    def batches(self, parts: Sequence[Part]) -> Iterator[pa.RecordBatch]:
        """The rows of these parts."""
        import pyarrow as pa

        for part in parts:
            # Writers in other languages want memory that is aligned, which the files' own need not be.
            aligned = pa.ipc.IpcReadOptions(ensure_alignment=pa.ipc.Alignment.At64Byte)
            path = str(self._target.work / part.file)
            with pa.OSFile(path) as file, pa.ipc.open_stream(file, options=aligned) as reader:
                yield from reader

    def finish(self) -> None:
        """Remove the folder, if the output is a file; a folder keeps the log."""
        if not self._target.is_folder:
            shutil.rmtree(self._target.work)

    def _require_place(self, header: Entry | None) -> None:
        if header is not None and header.get("place") != self._target.place:
            words = f"it is of the job on {header.get('place')}; name another with --work (work=), or remove it"
            raise InvalidArgumentError(f"{self._target.work}: {words}")

    def _append(self, kind: str, entry: Part | Output) -> None:
        self._log.append({"entry": kind, **vars(entry)})

    def _tidy(self) -> None:
        """Remove the files that do not count, or no longer."""
        wanted = {part.file: part.size for part in self.waiting()}
        for path in self._target.work.iterdir():
            if path.name not in (*wanted, LOCK, LOG):
                _remove(path)
        for name, size in wanted.items():
            path = self._target.work / name
            if not path.exists() or path.stat().st_size != size:
                raise InvalidArgumentError(f"{path}: the part is missing or cut; start anew with --restart")


def _is_own(name: str) -> bool:
    return name == LOCK or name.endswith(_TEMPORARY)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
