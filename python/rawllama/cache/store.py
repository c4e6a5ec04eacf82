"""A cache of rows on disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

import numpy as np

from .._numbering import renumber
from .._options import between
from ..errors import ClosedError, Interrupted, InvalidArgumentError, LlamaError
from ..raw import ffi
from ..rows import take
from ..texts import read
from .fingerprint import settings_hash
from .rows import CachedRows, Found

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..embedder import Embedder, PromptedOptions
    from ..rows import Rows
    from ..texts import Texts
    from .folder import Folder

# Bytes of keys, and of the largest limit.
_LONGEST_KEY, _LARGEST = 511, 1 << 46
_MODELS = "models"


def is_cache(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is a cache, of any format.

    Raises
    ------
    MissingExtraError
        lmdb is not installed.
    """
    from .folder import ABOUT  # with lmdb

    return Path(path, ABOUT).is_file()


@dataclass(frozen=True)
class Stats:
    """What is in a cache.

    Attributes
    ----------
    rows
        Rows in its files; one that was found in the oldest file, and so moved to the newest, counts twice.
    bytes, size_limit
        Bytes that the files have, and may have.
    """

    rows: int
    bytes: int
    size_limit: int

    def __str__(self) -> str:
        return f"{self.rows} rows, {self.bytes / 1e6:.1f} MB of {self.size_limit / 1e6:.1f} MB"


class Cache:
    """Rows by text, model and settings, in a folder that threads and processes of one machine share.

    A row that is found is, bit for bit, the one that was computed when the text was first met. Computed anew beside
    other texts it may differ from that by rounding, as rows of one Embedder do anyway (see the README).

    A process may be killed at any moment: what was written before stays. A row that was damaged on the disk is computed
    again. An object may be pickled, and used after a fork.

    Parameters
    ----------
    path
        The folder, on a local disk; a new one is made.
    size_limit
        Bytes on disk, 16 MiB at least; by default what the cache has already, and 10 GiB for a new one. Rows that
        take three quarters of it are all kept; beyond that, those go that were neither written nor used for longest.

    Attributes
    ----------
    path, size_limit
        What is in use.
    hits, misses
        Rows that were found, and that were not, by this object.

    Raises
    ------
    InvalidArgumentError
        The folder has other files, or a cache of another format; or the limit is too small.
    OSError
        It cannot be written.
    MissingExtraError
        lmdb is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], *, size_limit: int | None = None) -> None:
        from .folder import LEAST_LIMIT, open_folder  # with lmdb

        if size_limit is not None:
            between("size_limit", size_limit, LEAST_LIMIT, _LARGEST)
        self.path = Path(path)
        self._folder: Folder | None = open_folder(self.path, size_limit)
        self.size_limit = self._folder.limit
        self.hits = self.misses = 0

    def encode(self, embedder: Embedder, texts: str | Iterable[str], **options: Unpack[PromptedOptions]) -> Any:
        """`embedder.encode`, which computes only the rows that the cache has not got, and adds them to it.

        Parameters, result and errors are those of `Embedder.encode`. What was computed before an error or Ctrl-C is in
        the cache.

        Calls: llama_tokenize, llama_encode or llama_decode, llama_get_embeddings_seq
        """
        embedder._require_pooled()
        embedder._pipeline.require_open()
        source = read([texts] if isinstance(texts, str) else texts)
        found = self.rows_of(embedder, **options).find(source)
        rows = _encode_missing(embedder, source, found, options) if found.missing.size else found.rows
        return take(rows, 0) if isinstance(texts, str) else rows

    def rows_of(self, embedder: Embedder, **options: Unpack[PromptedOptions]) -> CachedRows:
        """The rows that `embedder.encode` gives with these options.

        Raises
        ------
        InvalidArgumentError
            An option is not possible; or the model was read from an open file, so that nothing says which it is.
        OSError
            The model's file cannot be read.
        """
        wanted = embedder._profile.options(**options)
        return CachedRows(self, wanted.target, settings_hash(embedder, wanted, self.path / _MODELS))

    def get_many(self, keys: Sequence[bytes], width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Rows of `width` bytes.

        Returns
        -------
        rows : ndarray
            uint8, shape (n, width); 0 where the cache has none.
        found : ndarray
            bool, shape (n,).

        Raises
        ------
        InvalidArgumentError
            A key has not 1 to 511 bytes.
        OSError
            The files cannot be opened.
        """
        rows = np.zeros((len(keys), width), np.uint8)
        found = self._open(keys).find(keys, rows)
        hits = int(found.sum())
        self.hits += hits
        self.misses += len(keys) - hits
        return rows, found

    def put_many(self, keys: Sequence[bytes], rows: NDArray[np.uint8]) -> None:
        """Add rows, shape (n, bytes of a row), in place of those that these keys had.

        Raises
        ------
        InvalidArgumentError
            A key has not 1 to 511 bytes, or the limit has no room for such rows.
        OSError
            They cannot be written.
        """
        if rows.dtype != np.uint8 or rows.ndim != 2 or len(rows) != len(keys):
            words = f"{rows.dtype}, shape {rows.shape}, is not uint8, shape ({len(keys)}, bytes)"
            raise InvalidArgumentError(f"rows: {words}")
        self._open(keys).add(keys, rows)

    def stats(self) -> Stats:
        """What is in it now."""
        rows, size = self._open().size()
        return Stats(rows, size, self.size_limit)

    def clear(self) -> None:
        """Remove all rows, for other processes too."""
        self._open().clear()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._folder is None

    def close(self) -> None:
        """Let go of the files. A second time does nothing."""
        self._folder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Cache {'closed' if self.closed else self.path}>"

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "closed": self.closed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]
        if state["closed"]:
            self.close()

    def _open(self, keys: Sequence[bytes] = ()) -> Folder:
        if self._folder is None:
            raise ClosedError("the Cache is closed; make a new one")
        for key in keys:
            if not 1 <= len(key) <= _LONGEST_KEY:
                raise InvalidArgumentError(f"keys: {key!r} has {len(key)} bytes, not 1 to {_LONGEST_KEY}")
        return self._folder


def _encode_missing(embedder: Embedder, source: Texts, found: Found, options: PromptedOptions) -> Rows:
    """All rows, of which those that are missing are computed; of what fails, too, what was computed is kept."""
    missing = found.missing
    try:
        return found.complete(embedder.encode(_strings(source, missing), **options))
    except LlamaError as error:
        renumber(error, missing.item)
        if error.done is not None:
            error.rows, error.done = found.complete(error.rows, error.done), found.done(error.done)
        raise
    except Interrupted as error:
        raise Interrupted(found.complete(error.rows, error.done), found.done(error.done)) from None


def _strings(source: Texts, indices: NDArray[np.int64]) -> list[str]:
    buffer, offsets = source.utf8(indices)
    utf8 = buffer if isinstance(buffer, bytes) else ffi.buffer(buffer, int(offsets[-1]))
    return [utf8[start:end].decode() for start, end in pairwise(offsets.tolist())]
