"""An Embedder's rows in a cache: those of texts that were met before are read, the others computed and written."""

from __future__ import annotations

import hashlib
import warnings
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ..raw import ffi
from ..rows import Int8Rows, RowFormat, Rows, arrays, take

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..texts import Texts
    from .store import Cache

# Bytes of a key: no two of all texts that disks can hold have the same.
_KEY = 16


class CachedRows:
    """The rows that an Embedder gives with certain options.

    Parameters
    ----------
    cache
        Where they are.
    target
        What a row is.
    settings
        As `fingerprint.settings_hash` gives them.
    """

    def __init__(self, cache: Cache, target: RowFormat, settings: bytes) -> None:
        self._cache = cache
        self._target = target
        self._settings = settings
        self._is_writable = True

    def find(self, texts: Texts) -> Found:
        """What is known of these texts."""
        keys = self._keys(texts)
        width = packed(self._target.empty(0)).shape[1]
        try:
            data, found = self._cache.get_many(keys, width)
        except OSError as error:
            warnings.warn(f"the cache is not read: {error}", RuntimeWarning, stacklevel=2)
            data, found = np.zeros((len(keys), width), np.uint8), np.zeros(len(keys), np.bool_)
        return Found(self, keys, unpacked(data, self._target), found)

    def store(self, keys: list[bytes], rows: Rows) -> None:
        """Write rows; where that fails, warn once and go on: they are there, and only have to be computed again."""
        if not self._is_writable or not keys:
            return
        try:
            self._cache.put_many(keys, packed(rows))
        except OSError as error:
            self._is_writable = False
            words = f"what is computed from now on is not cached: {error}"
            warnings.warn(words, RuntimeWarning, stacklevel=2)

    def _keys(self, texts: Texts) -> list[bytes]:
        buffer, offsets = texts.utf8(np.arange(len(texts)))
        utf8 = buffer if isinstance(buffer, bytes) else ffi.buffer(buffer, int(offsets[-1]))
        return [
            hashlib.blake2b(utf8[start:end], digest_size=_KEY, key=self._settings).digest()
            for start, end in pairwise(offsets.tolist())
        ]


class Found:
    """What a cache knows of some texts.

    Attributes
    ----------
    rows
        Rows of all texts, 0 where it does not know them.
    missing
        int64: the texts that it does not know.
    """

    def __init__(self, source: CachedRows, keys: list[bytes], rows: Rows, found: NDArray[np.bool_]) -> None:
        self._source = source
        self._keys = keys
        self.rows = rows
        self.missing: NDArray[np.int64] = np.flatnonzero(~found)

    def complete(self, computed: Rows, done: NDArray[np.bool_] | None = None) -> Rows:
        """The rows of all texts; `computed` are those of the missing ones, which are written to the cache.

        `done` tells which of them are computed, if not all.
        """
        places = self.missing
        for target, values in zip(arrays(self.rows), arrays(computed), strict=True):
            target[places] = values
        new = places if done is None else places[done]
        firsts = {self._keys[i]: i for i in reversed(new.tolist())}  # equal texts once
        self._source.store(list(firsts), take(self.rows, np.fromiter(firsts.values(), np.int64, len(firsts))))
        return self.rows

    def done(self, computed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Of which texts there are rows, if of the missing ones these are computed."""
        done = np.ones(len(self._keys), np.bool_)
        done[self.missing] = computed
        return done


def packed(rows: Rows) -> NDArray[np.uint8]:
    """Rows as bytes: shape (n, bytes of a row)."""
    columns = [np.ascontiguousarray(array).reshape(len(array), _width(array)) for array in arrays(rows)]
    parts = [column.view(np.uint8) for column in columns]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def unpacked(data: NDArray[np.uint8], target: RowFormat) -> Rows:
    """The reverse of `packed`, in memory of its own."""
    start, parts = 0, []
    for array in arrays(target.empty(0)):
        end = start + _width(array) * array.itemsize
        part: NDArray[Any] = np.ascontiguousarray(data[:, start:end]).view(array.dtype)
        parts.append(part.reshape(len(data), *array.shape[1:]))
        start = end
    return Int8Rows(*parts) if target.dtype == "int8" else parts[0]


def _width(array: NDArray[Any]) -> int:
    """Numbers a row."""
    return int(np.prod(array.shape[1:], dtype=np.int64))
