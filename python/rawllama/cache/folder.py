"""The folder of a cache: some files of rows, the newest of which is written; it, too, is shared by all processes."""

from __future__ import annotations

import json
import os
import threading
import warnings
import weakref
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidArgumentError
from ..files import replacing
from .generation import DamagedError, FullError, Generation

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Of the files in a folder. Another one says that this rawllama cannot read them.
FORMAT = 1
#: Bytes of a new cache, and the fewest of any.
DEFAULT_LIMIT, LEAST_LIMIT = 10 << 30, 16 << 20
# When the newest file is full, the oldest of so many goes.
_FILES = 4
# Bytes of a row beside its own, at most: key and place, in pages that are half full.
_OVERHEAD = 128
#: The file that says that a folder is a cache.
ABOUT = "cache.json"
_PREFIX, _SUFFIX = "rows-", ".mdb"

# A fork that copied a transaction would end it for the parent too: LMDB's table of readers is shared memory. So forks
# wait until nobody works with any file, and the child opens its own.
_mutex = threading.RLock()
_folders: weakref.WeakValueDictionary[Path, Folder] = weakref.WeakValueDictionary()


def open_folder(path: Path, size_limit: int | None) -> Folder:
    """The one of this process for `path`: LMDB forbids to open a file twice. Parameters and errors: see `Cache`."""
    with _mutex:
        limit = _prepared(path, size_limit)
        name = path.resolve()
        folder = _folders.get(name)
        if folder is None:
            folder = _folders[name] = Folder(name, limit)
        try:
            folder.shrink(limit)
        except OSError as error:
            raise _not_writable(path, error) from error
        return folder


class Folder:
    """Files of rows, numbered as they were made."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        #: Bytes that the files may have together.
        self.limit = limit
        self._opened: dict[int, Generation] = {}
        self._damaged: set[int] = set()
        self._finalizer = weakref.finalize(self, _close, self._opened)

    def find(self, keys: Sequence[bytes], rows: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Copy what is there to `rows`, shape (n, bytes of a row); bool, shape (n,): what that is.

        What is found in the file that goes next is written to the newest one.
        """
        found = np.zeros(len(keys), np.bool_)
        missing = list(range(len(keys)))
        with _mutex:
            numbers = self._numbers()
            last: list[int] = []
            for number in numbers:
                last = self._find(number, keys, missing, rows)
                found[last] = True
                missing = np.flatnonzero(~found).tolist()
            if last and len(numbers) >= _FILES:
                with suppress(OSError):  # it is only lost earlier
                    self.add([keys[i] for i in last], rows[last])
        return found

    def add(self, keys: Sequence[bytes], rows: NDArray[np.uint8]) -> None:
        """Write rows, shape (n, bytes of a row), to the newest file; to a new one where that is full.

        Raises
        ------
        InvalidArgumentError
            The limit has no room for such rows.
        OSError
            They cannot be written.
        """
        step = max(1, self._file_size // _FILES // (rows.shape[1] + _OVERHEAD))
        with _mutex:
            for start in range(0, len(keys), step):
                self._add(keys[start : start + step], rows[start : start + step])

    def clear(self) -> None:
        """Remove all rows, also for other processes."""
        with _mutex:
            number = max(self._numbers(), default=0) + 1
            self._open(number, old=False)
            self._remove_below(number)

    def shrink(self, limit: int) -> None:
        """Let the files have so many bytes from now on."""
        self.limit = limit
        with _mutex:
            number, generation = self.newest()
            with suppress(FileNotFoundError):  # another process has removed it: then it is not too large
                if generation.path.stat().st_size > self._file_size:
                    self._start(number + 1)
            self._remove_old()

    def newest(self) -> tuple[int, Generation]:
        """The file that is written, and its number."""
        for number in self._numbers()[:1]:
            if (generation := self._open(number, old=False)) is not None:
                return number, generation
            return self._start(number + 1)
        return self._start(1)

    def size(self) -> tuple[int, int]:
        """Rows, and bytes of the files; a row that moved counts twice."""
        rows = size = 0
        with _mutex:
            for number in self._numbers():
                size += self._file(number).stat().st_size
                if (generation := self._open(number)) is not None:
                    rows += generation.n_rows
        return rows, size

    def close(self) -> None:
        """Close the files; they are opened again when they are asked for."""
        with _mutex:
            _close(self._opened)

    @property
    def _file_size(self) -> int:
        return self.limit // _FILES

    def _find(self, number: int, keys: Sequence[bytes], missing: Sequence[int], rows: NDArray[np.uint8]) -> list[int]:
        generation = self._open(number) if len(missing) else None
        if generation is None:
            return []
        try:
            return generation.find(keys, missing, rows)
        except DamagedError as error:
            self._give_up(number, error)
            return []

    def _add(self, keys: Sequence[bytes], rows: NDArray[np.uint8]) -> None:
        for _ in range(_FILES):
            number, generation = self.newest()
            try:
                return generation.add(keys, rows)
            except FullError:
                self._start(number + 1)
            except DamagedError as error:
                self._give_up(number, error)
        raise InvalidArgumentError(f"size_limit: {self.limit} has no room for a row of {rows.shape[1]} bytes")

    def _start(self, number: int) -> tuple[int, Generation]:
        """Make the next file, if no other process has, and remove what is too much then."""
        generation = self._open(number, old=False)
        if generation is None:
            raise OSError(f"{self._file(number)} is no file that can be written")
        self._remove_old()
        return number, generation

    def _open(self, number: int, *, old: bool | None = None) -> Generation | None:
        """A file, opened; None where it is gone, or damaged. By default all but the newest are only read."""
        if number in self._damaged:
            return None
        if number not in self._opened:
            if old is None:
                old = number != max(self._numbers(), default=number)
            try:
                self._opened[number] = Generation(self._file(number), self._file_size, old=old)
            except FileNotFoundError:
                return None
            except DamagedError as error:
                self._give_up(number, error)
                return None
        return self._opened[number]

    def _give_up(self, number: int, error: DamagedError) -> None:
        self._damaged.add(number)
        _close(self._opened, [number])
        warnings.warn(f"the cache has lost some rows: {error}", RuntimeWarning, stacklevel=2)

    def _numbers(self) -> list[int]:
        """Of the files that are there, the newest first."""
        numbers = sorted(_numbers(self.path), reverse=True)
        _close(self._opened, self._opened.keys() - set(numbers))
        return numbers

    def _remove_old(self) -> None:
        """Remove the oldest files, as many as must go for the newest to become full."""
        total = self._file_size
        for number in self._numbers()[1:]:
            with suppress(FileNotFoundError):
                total += self._file(number).stat().st_size
            if total > self.limit:
                self._remove_below(number + 1)
                return

    def _remove_below(self, least: int) -> None:
        """Remove old files. Other processes read on in what they have open."""
        for number in sorted(_numbers(self.path)):
            if number < least:
                _close(self._opened, [number])
                for name in (self._file(number), Path(f"{self._file(number)}-lock")):
                    with suppress(OSError):  # Windows: until nobody has it open
                        name.unlink()

    def _file(self, number: int) -> Path:
        return self.path / f"{_PREFIX}{number:08}{_SUFFIX}"


def _numbers(path: Path) -> Iterator[int]:
    for name in os.listdir(path):  # noqa: PTH208 (for each call: it makes no paths)
        number = name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
        if number.isdecimal() and name == f"{_PREFIX}{number}{_SUFFIX}":
            yield int(number)


def _close(opened: dict[int, Generation], numbers: Collection[int] | None = None) -> None:
    """Close these files, or all."""
    for number in list(opened) if numbers is None else numbers:
        if (generation := opened.pop(number, None)) is not None:
            generation.close()


# What a cache is ------------------------------------------------------------------------------------------------------


def _prepared(path: Path, size_limit: int | None) -> int:
    """Make the folder a cache if it is none; its limit."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        about = _about(path)
        limit = size_limit or about.get("size_limit") or DEFAULT_LIMIT
        if about.get("size_limit") != limit:
            with replacing(path / ABOUT) as temporary:
                temporary.write_text(json.dumps({"format": FORMAT, "size_limit": limit}) + "\n", encoding="utf-8")
    except FileExistsError:
        raise InvalidArgumentError(f"path: {path} is a file; a cache is a folder") from None
    except OSError as error:
        raise _not_writable(path, error) from error
    return int(limit)


def _about(path: Path) -> dict[str, Any]:
    """What `ABOUT` says; nothing for a folder that is empty."""
    try:
        about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
        if about["format"] == FORMAT and about["size_limit"] >= LEAST_LIMIT:
            return dict(about)
        words = f"its format is {about['format']}, and this rawllama has {FORMAT}"
    except FileNotFoundError:
        if not any(name for name in path.iterdir() if not name.name.startswith(".")):
            return {}
        if (path / ABOUT).exists():  # another process has made it meanwhile
            return _about(path)
        words = "it has other files"
    except (ValueError, KeyError, TypeError):
        words = f"its {ABOUT} is damaged"
    raise InvalidArgumentError(f"path: {path} is no cache that can be used: {words}; empty it, or name another folder")


def _not_writable(path: Path, error: OSError) -> OSError:
    return OSError(f"{path} cannot be written ({error}): choose another folder for the cache")


# Forks ----------------------------------------------------------------------------------------------------------------


def _after_fork_in_child() -> None:
    for folder in list(_folders.values()):
        folder.close()
    _mutex.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_mutex.acquire, after_in_parent=_mutex.release, after_in_child=_after_fork_in_child)
