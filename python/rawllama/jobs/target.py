"""Where a job's output goes, and how it appears there: whole, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rawllama.errors import InvalidArgumentError

from . import sinks
from .inputs import is_address, listed, open_store
from .system import sync_folder

#: What a job keeps inside an output folder; readers of folders leave out what begins so.
WORK = "_rawllama"
_PARTS = "part-[0-9][0-9][0-9][0-9][0-9][0-9].*"
_FOLDER_KIND = "parquet"
#: The log of a job, in its folder of what is not yet put out; who has it is a job's.
LOG = "job.log"
# What SQLite would take for changes of a new database, if it were left of the one before.
_BESIDE_SQLITE = ("-journal", "-wal", "-shm")


@dataclass(frozen=True)
class Target:
    """An output.

    Attributes
    ----------
    name
        As it was given.
    kind
        One of `sinks.KINDS`.
    is_folder
        Whether it is a folder of several files.
    work
        The folder of what is computed and not yet put out.
    place
        Where the output is, as a job remembers it; empty where the place of `work` says it.
    path
        Where it is, in `store` if that is not None.
    """

    name: str
    kind: str
    is_folder: bool
    work: Path
    place: str
    path: str
    store: Any = None

    def require_possible(self) -> None:
        """Refuse an output that cannot be made, before there is anything to lose.

        Raises
        ------
        OSError
            Its folder is missing or not writable, or it is there and no plain file.
        InvalidArgumentError
            The folder has files of others.
        """
        parent = self.work.parent if self.store is not None or not self.is_folder else Path(self.path).parent
        if not parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.name)
        if not os.access(parent, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self.name)
        if self.is_folder and not (self.work / LOG).exists():
            self._require_empty()
        if self.store is not None:
            return
        path = Path(self.path)
        if self.is_folder:
            if path.exists() and not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.name)
        elif path.is_dir() != sinks.is_folder(self.kind) and path.exists():
            code = errno.EISDIR if path.is_dir() else errno.EEXIST
            raise OSError(code, os.strerror(code), self.name)
        elif path.exists() and not (path.is_file() or path.is_dir()):
            raise InvalidArgumentError(f"{self.name}: it is a device or a pipe; name a file, or a folder")

    def require_same_device(self) -> None:
        """Refuse a `work` from which no renaming leads to the output."""
        if self.store is not None:
            return
        parent = Path(self.path).parent
        work = next(path for path in (self.work, *self.work.parents) if path.exists())
        if work.stat().st_dev != parent.stat().st_dev:
            words = f"it is not on the file system of {parent}, where the output goes; name a folder there"
            raise InvalidArgumentError(f"work: {self.work}: {words}")

    def _require_empty(self) -> None:
        """Refuse a folder with files that no job on it has made."""
        if self.store is not None:
            names = listed(self.store, self.path, "*")
        else:
            path = Path(self.path)
            names = [one.name for one in path.iterdir() if one != self.work] if path.is_dir() else []
        if names:
            words = f"it has other files ({min(names)}); name an empty or a new folder"
            raise InvalidArgumentError(f"{self.name}: {words}")

    def part(self, number: int) -> str:
        """The name of a file in the folder."""
        return f"part-{number:06d}{sinks.ending(self.kind)}"

    def publish(self, made: Path, name: str | None = None) -> None:
        """Let what was made, in `work`, take its place: in the folder under this name."""
        if self.store is not None:
            self._upload(made, name)
            return
        place = Path(self.path, name) if name else Path(self.path)
        if name:
            place.parent.mkdir(exist_ok=True)
        if self.kind == "sqlite":
            for ending in _BESIDE_SQLITE:
                place.with_name(place.name + ending).unlink(missing_ok=True)
        if place.is_file():
            made.chmod(stat.S_IMODE(place.stat().st_mode))
        if made.is_dir() and place.is_dir():  # no system call replaces a folder that is not empty
            place.replace(self.work / "old.tmp")
        made.replace(place)
        sync_folder(place.parent)

    def withdraw(self) -> None:
        """Remove the files that were published into the folder."""
        if not self.is_folder:
            return
        if self.store is None:
            for path in Path(self.path).glob(_PARTS):
                path.unlink()
        elif names := listed(self.store, self.path, _PARTS):
            self.store.rm([f"{self.path}/{name}" for name in names])

    def missing(self, names: Iterable[str]) -> str | None:
        """The first of these files that is not in the folder; None if all are, or it is none."""
        if not self.is_folder:
            return None
        if self.store is None:
            there = {path.name for path in Path(self.path).glob(_PARTS)}
        else:
            there = set(listed(self.store, self.path, _PARTS))
        return next((name for name in names if name not in there), None)

    def _upload(self, made: Path, name: str | None) -> None:
        place = f"{self.path}/{name}" if name else self.path
        self.store.makedirs(self.store._parent(place), exist_ok=True)
        if made.is_dir():
            self.store.put(f"{made}/", f"{place}/", recursive=True)
            shutil.rmtree(made)
        else:
            self.store.put_file(str(made), place)
            made.unlink()


def open_target(
    name: str | os.PathLike[str], kind: str | None = None, work: str | os.PathLike[str] | None = None
) -> Target:
    """The output of this name.

    Parameters
    ----------
    name
        A file; or a folder of files, which ends with `/` or is there already. Or an address of one of these.
    kind
        One of `sinks.KINDS`; None: by the name's ending, Parquet in a folder.
    work
        Folder for what is computed and not yet put out. By default `NAME.parts` beside the output; inside a folder
        `_rawllama`; for an address, `NAME.HASH.parts` where the process runs.

    Raises
    ------
    InvalidArgumentError
        The ending says nothing.
    """
    text = os.fspath(name)
    remote = is_address(text)
    own = sinks.kind_of(text)
    has_folder_kind = own is not None and sinks.is_folder(own)
    text = text.rstrip("/" + os.sep) if has_folder_kind else text
    is_folder = text.endswith(("/", os.sep)) or (not remote and Path(text).is_dir() and not has_folder_kind)
    kind = kind or (_FOLDER_KIND if is_folder else own)
    if kind is None or kind not in sinks.KINDS:
        words = "its ending tells no format for files" if kind is None else f"{kind} is no format for files"
        raise InvalidArgumentError(f"{text}: {words}; choose one with --format: {', '.join(sinks.KINDS)}")
    if is_folder and sinks.is_folder(kind):
        raise InvalidArgumentError(f"{text}: a {kind} data set is a folder itself; name it NAME{sinks.ending(kind)}")
    if remote:
        store, path = open_store(text.rstrip("/"))
        address = store.unstrip_protocol(path)
        mark = hashlib.sha256(address.encode()).hexdigest()[:8]
        beside = Path(f"{Path(path).name}.{mark}.parts").absolute()
        return Target(text, kind, is_folder, Path(work) if work else beside, address, path, store)
    place = Path(os.path.realpath(text))
    if work:
        return Target(text, kind, is_folder, Path(os.path.realpath(work)), str(place), str(place))
    beside = place / WORK if is_folder else place.with_name(f"{place.name}.parts")
    return Target(text, kind, is_folder, beside, "", str(place))
