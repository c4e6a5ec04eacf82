"""One LMDB file of a cache: rows one after the other as they came, and an index of where each is."""

from __future__ import annotations

import errno
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import MissingExtraError

try:
    import lmdb
except ImportError:
    raise MissingExtraError("lmdb is not installed: pip install 'rawllama[cache]'") from None

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Transaction = lmdb.Transaction[memoryview]

# Where a row is: the number of its block, its place there, and the checksum of key and row.
_PLACE = struct.Struct("<QII")
_NUMBER = struct.Struct(">Q")  # as LMDB sorts them
# One for each thread of each process that reads.
_READERS = 1024
# What LMDB says of a file that is none of its own, or not whole.
_DAMAGED = (
    lmdb.InvalidError, lmdb.VersionMismatchError, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.NotFoundError,
    lmdb.PanicError, lmdb.IncompatibleError, lmdb.BadDbiError, struct.error,
)  # fmt: skip


class DamagedError(Exception):
    """The file is no LMDB file, or a part of it is missing or nonsense."""


class FullError(Exception):
    """The file has no room for these rows."""


class Generation:
    """Rows by key, as many as fit.

    LMDB's pages would waste up to half of the room if each row were a record of its own; so the rows of one call are
    one record. Nothing is ever removed: who wants room makes a new file and deletes the oldest.

    Parameters
    ----------
    path
        The file. It is made where it is missing, unless `old`.
    size
        Bytes that it may have.
    old
        It is only read.

    Raises
    ------
    FileNotFoundError
        It is `old`, and gone.
    DamagedError
        See there.
    OSError
        It cannot be opened.
    """

    def __init__(self, path: Path, size: int, *, old: bool) -> None:
        self.path = path
        with _translated(path):
            self._env = lmdb.open(
                str(path), map_size=size, subdir=False, readonly=old, max_dbs=2, max_readers=_READERS,
                metasync=False,  # the last rows may be lost with the power, but no others
            )  # fmt: skip
        try:
            with _translated(path):
                self._require_whole()
                self._index = self._open_db(b"index", create=not old)
                self._rows = self._open_db(b"rows", create=not old)
                self._env.reader_check()
        except BaseException:
            self._env.close()
            raise

    def close(self) -> None:
        """Unmap the file."""
        self._env.close()

    @property
    def n_rows(self) -> int:
        """Keys in the index."""
        with _translated(self.path), self._begin() as transaction:
            return transaction.stat(self._index)["entries"]

    def find(self, keys: Sequence[bytes], wanted: Sequence[int], rows: NDArray[np.uint8]) -> list[int]:
        """Copy the rows of `keys[i]` to `rows[i]`, for those i of `wanted` that are here and right; which they are.

        `rows` is contiguous, shape (n, bytes of a row).
        """
        width = rows.shape[1]
        target = rows.reshape(-1).data
        found = []
        with _translated(self.path), self._begin() as transaction:
            blocks = _Blocks(transaction, self._rows)
            for i in wanted:
                key = keys[i]
                place = transaction.get(key, db=self._index)
                if place is None:
                    continue
                number, slot, checksum = _PLACE.unpack(place)
                row = blocks[number][slot * width : (slot + 1) * width]
                if len(row) == width and zlib.crc32(row, zlib.crc32(key)) == checksum:
                    target[i * width : (i + 1) * width] = row
                    found.append(i)
        return found

    def add(self, keys: Sequence[bytes], rows: NDArray[np.uint8]) -> None:
        """Add rows, all or none; a key that is here gets the new one.

        Raises
        ------
        FullError
            They do not fit.
        DamagedError, OSError
            As the class.
        """
        with _translated(self.path), self._begin(write=True) as transaction:
            with transaction.cursor(self._rows) as cursor:
                number = _NUMBER.unpack(cursor.key())[0] + 1 if cursor.last() else 0
            transaction.put(_NUMBER.pack(number), np.ascontiguousarray(rows).data, append=True, db=self._rows)
            places = sorted(
                (key, _PLACE.pack(number, slot, zlib.crc32(row, zlib.crc32(key))))
                for slot, (key, row) in enumerate(zip(keys, rows, strict=True))
            )
            with transaction.cursor(self._index) as cursor:
                cursor.putmulti(places)

    def _begin(self, *, write: bool = False) -> Transaction:
        try:
            return self._env.begin(write=write, buffers=True)
        except lmdb.MapResizedError:  # by a process that gave another limit
            self._env.set_mapsize(0)
            return self._env.begin(write=write, buffers=True)

    def _open_db(self, name: bytes, *, create: bool) -> lmdb._Database:
        try:
            return self._env.open_db(name, create=create)
        except lmdb.MapResizedError:
            self._env.set_mapsize(0)
            return self._env.open_db(name, create=create)

    def _require_whole(self) -> None:
        """Refuse a file that is shorter than LMDB thinks: reading behind its end would kill the process."""
        needed = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        if 0 < self.path.stat().st_size < needed:
            raise DamagedError(f"{self.path}: it was cut")


class _Blocks(dict[int, memoryview]):
    """LMDB's own memory of the blocks that were asked for; nothing for one that is not there."""

    def __init__(self, transaction: Transaction, rows: lmdb._Database) -> None:
        super().__init__()
        self._transaction, self._rows = transaction, rows

    def __missing__(self, number: int) -> memoryview:
        block = self[number] = self._transaction.get(_NUMBER.pack(number), db=self._rows) or memoryview(b"")
        return block


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """LMDB's errors as ours."""
    try:
        yield
    except lmdb.MapFullError:
        raise FullError from None
    except _DAMAGED as error:
        raise DamagedError(f"{path}: {error}") from error
    except lmdb.Error as error:
        if not path.exists():
            raise FileNotFoundError(str(path)) from error
        words = f"{error} (is the disk full?)" if error.code in (errno.EIO, errno.ENOSPC) else str(error)
        raise OSError(f"{path}: {words}") from error
